"""The shapes in the signatures hold: public functions run with jaxtyping's checks switched on."""

import subprocess
import sys

SCRIPT = """
import itertools
from jaxtyping import TypeCheckError, install_import_hook
with install_import_hook("jbn", "beartype.beartype"):
    import jbn, jbn.linen, jbn.nnx
import jax, jax.numpy as jnp

def use_everything(x, mask):
    affine, stats = jbn.init(x.shape[-1], x.dtype)
    jax.grad(lambda x: jbn.batch_norm(x, affine, stats, mask=mask)[0].sum())(x)
    moments = jbn.bessel_correction(jbn.batch_moments(x, mask=mask))
    jbn.pool_moments(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), moments))
    jbn.normalize(x, *jbn.update_running(stats, moments, momentum=jbn.warmup_momentum(3)))
    jbn.linen.BatchNorm(use_running_average=False).init(jax.random.key(0), x)

types = itertools.cycle([jnp.float32, jnp.bfloat16])  # each with each mask and each shape
for shape in ((8, 3), (4, 5, 6, 3), (2048, 32)):
    for mask in (None, jnp.ones(shape[:-1], bool), jnp.ones(shape, bool)):
        x = jnp.ones(shape, next(types))
        jax.eval_shape(lambda x, mask=mask: use_everything(x, mask), x)
stats = jbn.init(3)[1]
try:
    jbn.update_running(stats, stats, momentum=0.9)
except TypeCheckError:
    print("checked")
"""


def test_public_functions_match_their_annotations():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert run.stdout.strip() == "checked", run.stderr
