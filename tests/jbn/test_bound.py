"""Every family of data, running statistics, mask and type is within the bound of docs/math.md."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from bound import BOUND, assert_bound, errors
from families import FAMILIES, STATISTICS, draw, large

import jbn
import jbn.linen
from jbn._numerics import columns

HERE = Path(__file__).parents[1]
SMALL = [name for name in FAMILIES if name not in large()]
# Shapes whose second and third derivatives are held too: they take seconds to compile.
DIFFERENTIATED = [(512, 4), (16, 12, 12, 4)]
# One row of each kind of trouble, for what need not be tried with all of them.
WORST = [
    "N(0, 5.623e+12)",
    "N(1e+07, 1)",
    "N(-1e+12, 1e+06)",
    "N(1e+26, 1e+19)",
    "N(1e-23, 1e-30)",
    "N(1000, 1), 0 in the first and last row",
    "1e+14 in row 17",
    "1e+20 in 40 rows",
    "1e+37 in all rows but two",
    "one feature with an outlier",
    "heavy tails (10 z)^11",
    "constant 12345.7",
    "one dead feature",
    "positive near the largest",
    "sorted drift over a large mean",
    "images of N(100, 1), two corner pixels zero",
    "N(-10000, 0.1) of shape (20011, 2)",
]


def by_linen(x, affine, stats, variant, mask, epsilon):
    layer = jbn.linen.BatchNorm(use_running_average=False, momentum=0.0, epsilon=epsilon)
    variables = {"params": affine._asdict(), "batch_stats": stats._asdict()}
    y, updates = layer.apply(variables, x, mask=mask, mutable=["batch_stats"])
    return y, jbn.RunningStats(**updates["batch_stats"])


@pytest.mark.parametrize("family", SMALL)
def test_every_family_is_within_the_bound(family):
    x = draw(family)
    assert_bound(errors(x, order=3 if x.shape in DIFFERENTIATED else 1))


@pytest.mark.parametrize("family", WORST)
def test_a_layer_is_within_the_bound(family):
    assert_bound(errors(draw(family), front=by_linen, order=1))


@pytest.mark.parametrize("statistics", [name for name in STATISTICS if name != "cold"])
@pytest.mark.parametrize("family", WORST)
def test_whatever_the_running_statistics_are(family, statistics):
    x = draw(family, seed=2)
    assert_bound(errors(x, statistics, order=3 if x.shape in DIFFERENTIATED else 1))


@pytest.mark.parametrize("family", SMALL)
def test_statistics_far_off_and_a_mask_by_row(family):
    x = draw(family, seed=3)
    mask = np.random.default_rng(4).random(x.shape[:-1]) < 0.7
    mask.reshape(-1)[:2] = True
    assert_bound(errors(x, "wrong by 1e20", mask, order=1))


@pytest.mark.parametrize("statistics", ["cold", "good", "far"])
@pytest.mark.parametrize("family", WORST)
def test_a_mask_by_element(family, statistics):
    x = draw(family, seed=5)
    mask = np.random.default_rng(6).random(x.shape) < 0.4
    mask.reshape(-1, x.shape[-1])[:2] = True
    assert_bound(errors(x, statistics, mask, order=3 if x.shape in DIFFERENTIATED else 1))


@pytest.mark.parametrize(("epsilon", "std"), [(1e-12, 1e-5), (1e-20, 1e-8), (1e-3, 1.0)])
@pytest.mark.parametrize("ratio", [0, 1e4, -1e7])
def test_other_epsilons(epsilon, std, ratio):
    x = std * (ratio + np.random.default_rng(7).standard_normal((512, 4)))
    # Third derivatives hold var^-3.5, which at epsilon 1e-20 no factor can keep in float32.
    assert_bound(errors(x.astype(np.float32), epsilon=epsilon, order=3 if epsilon > 1e-15 else 2))


@pytest.mark.parametrize("statistics", ["cold", "good", "wrong by 1e20"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize(
    ("mean", "std", "rows"), [(0, 300, 512), (500, 1, 512), (2e4, 10, 512), (0, 1e-4, 512),
                              (5, 1, 70_000)],
)  # fmt: skip
def test_half_precision_loses_only_the_last_rounding(dtype, mean, std, rows, statistics):
    x = mean + std * np.random.default_rng(8).standard_normal((rows, 4))
    unit = float(jnp.finfo(dtype).eps)
    found = errors(x.astype(np.float32).astype(dtype), statistics, order=1)
    assert_bound(found, BOUND | {"y": unit, "dx": unit})


def test_a_bfloat16_model_keeps_learning_its_mean():
    x = 5 + jax.random.normal(jax.random.key(0), (64, 3), jnp.bfloat16)
    affine, stats = jbn.init(3, jnp.bfloat16)
    for _ in range(1000):
        _, stats = jbn.batch_norm(x, affine, stats, momentum=0.99)
    np.testing.assert_allclose(stats.mean, jnp.mean(x.astype(jnp.float32), 0), rtol=1e-3)


@pytest.mark.parametrize(
    "family",
    ["N(1e+06, 1)", "images of N(1e4, 2)", "N(0, 1e+20)", "sorted drift over a large mean"],
)
def test_double_precision(family):
    x = FAMILIES[family](np.random.default_rng(6))
    ct = np.random.default_rng(7).standard_normal(x.shape)
    with jax.enable_x64(True):
        affine, _ = jbn.init(x.shape[-1], jnp.float64)
        _, stats = jbn.init(x.shape[-1])

        def loss(x):
            y, new = jbn.batch_norm(x, affine, stats, momentum=0.0)
            return jnp.sum(y * ct), (y, new)

        dx, (y, new) = jax.grad(loss, has_aux=True)(jnp.asarray(x))
        ref = reference.batch_norm(x, *affine, ct, epsilon_dtype=np.float64)
        tight = dict.fromkeys(reference.TOLERANCES, 5e-14)
        reference.assert_matches(ref, tolerances=tight, y=y, dx=dx)
        assert new.var.dtype == jnp.float32


# `bound.py` as a command, with or without the sums that `make fast` builds.
COMMAND = """
import runpy, sys
from jbn._numerics import columns
columns.BUILT = columns.BUILT and sys.argv[1] == "native"
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("sums", ["XLA", "native"])
def test_with_full_optimisation_on_one_device(sums):
    """Other tests run with code generation at its lowest level; what fusion does shows here."""
    if sums == "native" and not columns.BUILT:
        pytest.skip("not built: make fast")
    paths = os.pathsep.join(map(str, (HERE, HERE.parent)))
    settings = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": paths}
    script = [sys.executable, "-W", "error", "-c", COMMAND, sums, str(HERE / "bound.py")]
    script += [*WORST, *large()]
    done = subprocess.run(
        script, env=settings, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
