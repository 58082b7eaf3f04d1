"""Batches of the fuzzer's programs, and the right results, in extended precision."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import reference
import variant_reference
from families import STATISTICS, statistics
from hypothesis import strategies as st

import jbn


class Datum(NamedTuple):
    """Numbers of a batch: a family, and outliers at any set of rows."""

    kind: str
    ratio: float  # of mean and deviation
    power: float  # of ten, the deviation
    rows: frozenset[int]  # modulo the number of rows
    others: bool  # whether all rows but these are the outliers
    outlier: float
    everywhere: bool  # or in one feature only
    statistics: str
    kept: float  # share of what the mask lets count
    seed: int


KINDS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "constant": lambda rng, shape: np.zeros(shape),
    "sorted": lambda rng, shape: np.sort(rng.standard_normal(shape), axis=0),
    "cubed": lambda rng, shape: (3 * rng.standard_normal(shape)) ** 3,
    "sparse": lambda rng, shape: 1.0 * (rng.random(shape) < 0.05),
    "integers": lambda rng, shape: rng.integers(-3, 4, shape) * 1.0,
    "two clusters": lambda rng, shape: (
        np.where(rng.random(shape) < 0.3, 1e4, -1e4) + rng.standard_normal(shape)
    ),
}

DATA = st.builds(
    Datum,
    kind=st.sampled_from(list(KINDS)),
    ratio=st.sampled_from([0.0, 0.5, -3.0, 30.0, -1e3, 1e4, -1e5, 1e6, 1e7, -1e7]),
    power=st.just(0.0) | st.floats(-30, 37, width=16),
    rows=st.frozensets(st.integers(0, 4095), max_size=6),
    others=st.booleans(),
    outlier=st.just(0.0)
    | st.builds(lambda sign, p: sign * 10.0**p, st.sampled_from([-1, 1]), st.floats(3, 30)),
    everywhere=st.booleans(),
    statistics=st.sampled_from(list(STATISTICS)),
    kept=st.sampled_from([0.7, 0.3, 1.0]),
    seed=st.integers(0, 2**16),
)

# The largest deviation, mean and outlier of each type.
_LIMITS = {"float16": 1e4, "bfloat16": 3e37, "float32": 3e37, "float64": 3e37}


def batch(datum: Datum, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """x in its own type, its denormals zero, as XLA reads them on a CPU."""
    rng, limit = np.random.default_rng(datum.seed), _LIMITS[dtype]
    deviation = min(10.0**datum.power, limit / 10)
    if dtype == "float16":
        deviation = max(deviation, 1e-3)
    mean = np.clip(datum.ratio * deviation, -limit, limit)
    x = mean + deviation * KINDS[datum.kind](rng, shape)
    flat = x.reshape(-1, shape[-1])
    odd = np.isin(np.arange(len(flat)), [row % len(flat) for row in datum.rows])
    if datum.rows:
        features = slice(None) if datum.everywhere else slice(0, 1)
        flat[odd ^ datum.others, features] = datum.outlier
    x = np.clip(x, -limit, limit).astype(jnp.dtype(dtype))
    return np.where(np.abs(x) < jnp.finfo(x.dtype).tiny, np.zeros_like(x), x)


def widen(mask, shape) -> np.ndarray:
    """A mask of the shape of x, from one flag per example or per element, or none."""
    if mask is None:
        return np.ones(shape, bool)
    return np.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape)


class Arguments(NamedTuple):
    x: Any
    affine: jbn.Affine
    stats: jbn.RunningStats
    ct: Any  # of y, or of the mean and the variance
    mask: Any


def arguments(datum: Datum, shape, dtype, mask_shape) -> Arguments:
    """Arrays of a program; `x` holds its numbers also where the mask excludes them."""
    x, rng = batch(datum, shape, dtype), np.random.default_rng(datum.seed + 1)
    mask = None
    if mask_shape is not None:
        mask = rng.random(mask_shape) < datum.kept
        mask[:2] = True
    kept = np.float64 if dtype == "float64" else np.float32
    affine = jbn.Affine(*rng.normal(1, 1, (2, shape[-1])).astype(kept))
    ct = np.where(widen(mask, shape), rng.standard_normal(shape), 0).astype(x.dtype)
    plain = reference.batch_norm(x.astype(kept), *affine, ct, mask=mask)
    mean, var = statistics(datum.statistics, plain.mean, plain.var)
    return Arguments(x, affine, jbn.RunningStats(mean.astype(kept), var.astype(kept)), ct, mask)


class Expected(NamedTuple):
    right: dict[str, np.ndarray]
    units: dict[str, np.ndarray]
    other: dict[str, np.ndarray]  # what is right as well; here and there NaN is no answer


def expected(variant, given: Arguments) -> Expected:
    """What `variant` makes of a batch, as `dy` too the derivative of y along the cotangent."""
    x, affine, stats, ct, mask = given
    kept = stats.mean.dtype.type
    largest = float(np.finfo(kept).max)
    ref = variant_reference.batch_norm(
        variant, x.astype(kept), affine, stats, ct, mask=mask, epsilon_dtype=kept
    )
    right = {}
    for name in ("y", "dx", "dscale", "dbias"):
        # What `Running` makes of statistics far off may be beyond the type.
        limit = float(jnp.finfo(x.dtype if name in ("y", "dx") else kept).max) / 8
        right[name] = np.where(ref.bounds[name] < limit, getattr(ref, name), np.nan)
    for name, old in stats._asdict().items():
        right[name] = np.where(ref.var < largest, getattr(ref, name), old)
    # The derivative of y in x is a symmetric map.
    right, units = {**right, "dy": right["dx"]}, {**ref.bounds, "dy": ref.bounds["dx"]}
    # A group, of four rows at least, may have a variance beyond the type where the whole has not.
    counted = np.where(widen(mask, x.shape), np.abs(x.astype(kept) - ref.mean), 0)
    beyond = counted.max(tuple(range(x.ndim - 1))).astype(np.longdouble) ** 2 > largest / 4
    grouped = "Ghost" in repr(variant)
    other = {n: np.where(beyond & grouped, old, np.nan) for n, old in stats._asdict().items()}
    return Expected(right, units, other)


def expected_moments(given: Arguments) -> Expected:
    """Mean and variance, and the gradient of x; anything where the variance is beyond the type."""
    x, weights, _, _, mask = given
    kept = weights.scale.dtype.type
    ref = reference.batch_norm(x.astype(kept), *weights, np.zeros(x.shape), mask=mask)
    where, n = widen(mask, x.shape), np.maximum(ref.size, 1)
    axes = tuple(range(x.ndim - 1))
    centred, _ = reference.centre(np.where(where, x, 0).astype(np.longdouble), where, axes, n)
    centred = np.where(where, centred, 0)
    dx = where * (weights.scale + 2 * weights.bias * centred) / n
    largest = np.abs(centred).max(axes)
    units = {**ref.bounds, "dx": np.abs(weights.scale) + 2 * np.abs(weights.bias) * largest}
    units["dx"] = units["dx"] / n
    held = ref.var < float(np.finfo(kept).max)
    right = {"mean": ref.mean, "var": ref.var, "dx": dx}
    return Expected({k: np.where(held, v, np.nan) for k, v in right.items()}, units, {})
