"""A training step leaves Python by `jax.export` and comes back: records, variants, gradients."""

import subprocess
import sys
from dataclasses import dataclass
from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import export

import jbn
import jbn.linen

FEATURES = 6
PLATFORMS = ["cpu", "cuda", "tpu"]
VARIANTS = [
    jbn.Standard(),
    jbn.Renorm(1.5, 0.5),
    jbn.Noisy(jax.random.key(1), base=jbn.Renorm(1.5, 0.5)),
    jbn.Ghost(4, jbn.Renorm(1.5, 0.5)),
    jbn.Running(),
    jbn.Uncentered(),
    jbn.Detached(var=False),
]


def draw(shape, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    x = 3 + 2 * jax.random.normal(keys[0], (*shape, FEATURES))
    affine = jbn.Affine(*(1 + 0.3 * jax.random.normal(keys[1], (2, FEATURES))))
    return x, affine, jbn.RunningStats(2 * jnp.ones(FEATURES), 3 * jnp.ones(FEATURES))


def forward(x, affine, stats, variant, mask=None):
    return jbn.batch_norm(x, affine, stats, variant=variant, momentum=0.5, mask=mask)


def step(x, affine, stats, variant):
    def loss(x, affine):
        y, new = forward(x, affine, stats, variant)
        return jnp.sum(jnp.sin(y) * jnp.cos(x)), (y, new)

    return jax.grad(loss, (0, 1), has_aux=True)(x, affine)


def exported(function, shape, *rest):
    """`function` of a batch of symbolic `shape`, written to bytes and read again."""
    batch = export.symbolic_shape(shape)
    x = jax.ShapeDtypeStruct((*batch, FEATURES), jnp.float32)
    rest = [jax.ShapeDtypeStruct(batch, r.dtype) if r is FLAGS else r for r in rest]
    out = export.export(jax.jit(function), platforms=PLATFORMS)(x, *rest)
    order = 1 if function is forward else 0
    back = export.deserialize(out.serialize(vjp_order=order))
    assert back.in_tree == out.in_tree
    assert back.out_tree == out.out_tree
    assert list(back.platforms) == PLATFORMS
    return back


FLAGS = jnp.ones((), bool)  # stands for a mask of the batch's shape


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: type(v).__name__)
def test_a_training_step_with_its_gradients_comes_back(variant):
    back = exported(step, "4*g", *draw((8,))[1:], variant)
    args = (*draw((20,)), variant)
    chex.assert_trees_all_close(back.call(*args), jax.jit(step)(*args), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("shape", "sizes"), [("n", [(2,), (7,)]), ("b,h", [(2, 3), (1, 5)])])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_taken_after_it_came_back(shape, sizes, masked):
    x, affine, stats = draw(sizes[0])
    masks = [FLAGS] if masked else []
    back = exported(forward, shape, affine, stats, jbn.Standard(), *masks)
    for size in sizes:
        x, affine, stats = draw(size)
        rest = [jnp.ones(size, bool).at[0].set(False)] if masked and size[0] > 2 else []
        rest = rest or ([jnp.ones(size, bool)] if masked else [])

        def loss(f, x, affine, stats=stats, rest=rest):
            y, new = f(x, affine, stats, jbn.Standard(), *rest)
            return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.cos(new.var)), new

        gradient = jax.value_and_grad(loss, (1, 2), has_aux=True)
        got, expected = (jax.jit(partial(gradient, f))(x, affine) for f in (back.call, forward))
        chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-5)


def test_all_records_are_arguments_and_results():
    moments = jbn.batch_moments(draw((8,))[0])
    drift = jbn.Drift(1.0, 2.0, 3.0)
    function = jax.jit(lambda moments, drift: (jbn.bessel_correction(moments), drift))
    back = export.deserialize(export.export(function)(moments, drift).serialize())
    new, same = back.call(moments, drift)
    assert type(new) is jbn.Moments
    assert type(same) is jbn.Drift
    chex.assert_trees_all_close((new, same), function(moments, drift))


@dataclass(frozen=True)
class Own:
    """A variant of a class that JAX does not know."""

    def __call__(self, *args, **options):
        return jbn.Standard()(*args, **options)


def test_a_variant_of_ones_own_is_part_of_the_program():
    for variant in (Own(), jbn.Ghost(4, Own())):
        train = lambda *args, v=variant: forward(*args, v)  # noqa: E731
        args = draw((8,))
        back = export.deserialize(export.export(jax.jit(train))(*args).serialize())
        chex.assert_trees_all_close(back.call(*args), train(*args), rtol=1e-6)


def test_a_linen_model_trains_after_it_came_back():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return jbn.linen.BatchNorm(use_running_average=False)(nn.Dense(FEATURES)(x))

    x, _, _ = draw((8,))
    variables = Model().init(jax.random.key(0), x)

    def train(x, variables):
        return Model().apply(variables, x, mutable=["batch_stats"])

    back = exported(train, "n", variables)
    chex.assert_trees_all_close(back.call(x, variables), train(x, variables), rtol=1e-5, atol=1e-6)


def test_a_symbolic_batch_that_ghosts_may_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"Ghost\(group_size=4.*x.shape\[0\]=n\b"):
        exported(forward, "n", *draw((8,))[1:], jbn.Ghost(4))


LOAD = """
import sys, jax, jax.numpy as jnp, jbn
from jax import export
back = export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
y, new = back.call(jnp.arange(12.0).reshape(2, 6), *jbn.init(6), jbn.Renorm(2.0, 1.0))
print(type(new).__name__, jnp.isfinite(y).all())
"""


def test_another_process_reads_it(tmp_path):
    written = tmp_path / "step"
    function = jax.jit(forward)
    args = (jnp.ones((2, 6)), *jbn.init(6), jbn.Renorm(1.0, 0.0))
    written.write_bytes(export.export(function)(*args).serialize())
    run = subprocess.run(
        [sys.executable, "-c", LOAD, str(written)], capture_output=True, text=True, check=False
    )
    assert run.stdout.split() == ["RunningStats", "True"], run.stderr
