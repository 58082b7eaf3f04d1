"""Inputs on which floating point is hard, and moments that are put together from parts of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jbn

FEATURES = 8
FEW = 512  # rows of the families of outliers


class Family(NamedTuple):
    """Inputs that are hard for one reason."""

    name: str
    x: np.ndarray
    epsilon: float = 1e-5
    from_parts: Callable[[jax.Array], jbn.RunningStats] | None = None
    """jbn's mean and variance from parts of x; every rival has the whole batch at once."""


def families(rows: int, rng: np.random.Generator) -> Iterator[Family]:
    """Makes the families, easy ones first, of `rows` rows unless a name says another number."""

    def normal(mean: Any = 0.0, std: float = 1.0, rows: int = rows) -> np.ndarray:
        return (mean + std * rng.standard_normal((rows, FEATURES))).astype(np.float32)

    for mean, std in [(0, 1), (1e2, 1), (1e3, 1), (1e4, 1), (1e4, 0.1), (1e6, 1), (1e7, 1)]:
        yield Family(f"mean {mean:g}, std {std:g}", normal(mean, std))
    yield Family("constant 12345.678", np.full((rows, FEATURES), 12345.678, np.float32))
    drift = np.sort(rng.uniform(0, 1e4, (rows, 1)), axis=0)
    yield Family("sorted drift, 0 to 1e4", normal(drift))
    scales = np.logspace(-20, 20, FEATURES)
    yield Family("scales 1e-20 to 1e20", (normal() * scales).astype(np.float32))
    for size in (1e-30, 1e-20, 1e-10, 1e-6, 1e12, 10**12.75, 1e18, 1e20, 1e30, 1e37, 6e37):
        yield Family(f"std {size:.3g}", normal(std=size))
    yield Family("std 10^12.75, 64 rows", normal(std=10**12.75, rows=64))
    yield Family("denormal, std 1e-39", normal(std=1e-39))
    yield Family("std 1e-6, epsilon 1e-12", normal(std=1e-6), epsilon=1e-12)
    yield Family("2 rows, mean 100", normal(100, rows=2))
    yield Family("3 rows, mean 100", normal(100, rows=3))
    yield Family("1000000 rows, mean 1000", normal(1e3, rows=1_000_000)[:, :2].copy())
    signs = np.where(rng.random((65536, 64)) < 0.5, 1, -1)
    yield Family("65536 rows of 64 features, -0.1 or 0.1", (0.1 * signs).astype(np.float32))
    yield from _untypical_rows(rng)
    yield Family("bfloat16, mean 500, std 300", normal(500, 300).astype(jnp.bfloat16))
    yield Family("float16, mean 500, std 300", normal(500, 300).astype(np.float16))
    yield Family("float16, mean 20000, std 300", normal(2e4, 300).astype(np.float16))
    yield Family("float16, 70000 rows", normal(1, rows=70_000).astype(np.float16))
    for dtype in (jnp.float8_e4m3fn, jnp.float8_e5m2):
        yield Family(f"{jnp.dtype(dtype).name}, mean 5, std 3", normal(5, 3).astype(dtype))
    for mean in (1e5, 1e7):
        for name, from_parts in PARTS.items():
            yield Family(f"{name}, mean {mean:g}", normal(mean), from_parts=from_parts)


def _untypical_rows(rng: np.random.Generator) -> Iterator[Family]:
    """Yields data in which some rows, pixels or tokens say nothing of the others."""

    def normal(mean: float, shape: tuple[int, ...]) -> np.ndarray:
        return (mean + rng.standard_normal(shape)).astype(np.float32)

    def rows(values: Sequence[int], size: float, mean: float, count: int = FEW) -> np.ndarray:
        x = normal(mean, (count, FEATURES if count == FEW else 2))
        x[list(values)] = size
        return x

    middle, last = FEW // 2, FEW - 1
    for name, where in {
        "first": [0],
        "first and last": [0, last],
        "first and middle": [0, middle],
        "middle and last": [middle, last],
        "first, middle and last": [0, middle, last],
    }.items():
        yield Family(f"mean 1000, {name} row 0", rows(where, 0, 1e3))
        yield Family(f"mean 0, {name} row 10000", rows(where, 1e4, 0))
    for size in (1e4, 1e6, 1e10, 1e12, 1e14, 1e16, 1e18, 1e19):
        yield Family(f"one row {size:g}", rows([17], size, 0))
    yield Family("40 rows 1e14", rows(range(5, FEW, 13), 1e14, 0))
    yield Family("2^20 rows, first and last 10000", rows([0, -1], 1e4, 0, 2**20))
    images = normal(100, (64, 56, 56, 4))
    images[0, 0, 0] = images[-1, -1, -1] = 0
    yield Family("64 images, mean 100, two corner pixels 0", images)
    tokens = normal(100, (32, 64, FEATURES))
    tokens[:, 0] = 0
    yield Family("32 sequences, mean 100, first tokens 0", tokens)


def _ghost(x: jax.Array) -> jbn.RunningStats:
    start = jbn.init(x.shape[-1])
    return jbn.batch_norm(x, *start, variant=jbn.Ghost(len(x) // 8), momentum=0.0)[1]


def _pooled(x: jax.Array) -> jbn.RunningStats:
    parts = [jbn.batch_moments(part) for part in jnp.array_split(x, [len(x) // 3])]
    pooled = jbn.pool_moments(jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts))
    return jbn.RunningStats(pooled.mean, pooled.var)


def _recalibrated(x: jax.Array) -> jbn.RunningStats:
    batches = jnp.array_split(x, [len(x) // 3])
    return jbn.recalibrate(jbn.batch_moments, jbn.init(x.shape[-1])[1], batches)[0]


PARTS = {"Ghost": _ghost, "pool_moments": _pooled, "recalibrate": _recalibrated}
