"""Batch norm from its formulas in numpy, in more digits than any library has, to judge them by."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Problem(NamedTuple):
    """One batch, features last, and the cotangent of `y`: what every library is given."""

    x: np.ndarray
    cotangent: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    epsilon: float = 1e-5

    @property
    def nbytes(self) -> int:
        return self.x.nbytes


def make_problem(x: np.ndarray, rng: np.random.Generator, epsilon: float = 1e-5) -> Problem:
    """Draws scale, bias and cotangent for `x`: no gradient is then zero by symmetry."""
    features = x.shape[-1]
    return Problem(
        x,
        rng.standard_normal(x.shape, np.float32).astype(x.dtype),
        rng.uniform(0.5, 1.5, features).astype(np.float32),
        rng.standard_normal(features, np.float32),
        epsilon,
    )


class Answer(NamedTuple):
    """Values, and for each of them what an error of one means, per feature."""

    values: dict[str, np.ndarray]
    units: dict[str, np.ndarray]


def solve(problem: Problem, dtype: Any = np.longdouble) -> Answer:
    """Returns y, batch mean and biased variance, and the gradients of sum(cotangent * y).

    `np.longdouble` has 64 bits of mantissa on x86, more than float64 on few other machines.
    """
    x, cotangent, scale, bias = (np.asarray(array).astype(dtype) for array in problem[:4])
    axes, n = tuple(range(x.ndim - 1)), np.prod(x.shape[:-1])
    mean = x.mean(axes)
    mean = mean + (x - mean).mean(axes)  # the first one rounds; constants are then exact
    centred = x - mean
    var = np.square(centred).mean(axes)
    deviation = np.sqrt(var + dtype(np.float32(problem.epsilon)))
    xhat = centred / deviation
    dbias, dscale = cotangent.sum(axes), (cotangent * xhat).sum(axes)
    dx = scale / deviation * (cotangent - (dbias + xhat * dscale) / n)
    y = xhat * scale + bias
    values = {"y": y, "mean": mean, "var": var, "dx": dx, "dscale": dscale, "dbias": dbias}
    units = {
        "y": np.abs(y - bias).max(axes) + np.abs(bias) + np.abs(scale),
        "mean": np.abs(mean) + deviation,
        "var": deviation**2,
        "dx": np.abs(scale) * np.abs(cotangent).max(axes) / deviation,
        "dscale": np.abs(cotangent * xhat).sum(axes),
        "dbias": np.abs(cotangent).sum(axes),
    }
    return Answer(values, units)


def errors(answer: Answer, results: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Returns the largest error of each quantity, in its units; NaN where one is not finite."""
    result = {}
    for name, value in results.items():
        exact = answer.values[name]
        difference = np.asarray(value).astype(exact.dtype) - exact
        worst = np.max(np.abs(difference) / answer.units[name])
        result[name] = float(worst) if np.isfinite(worst) else float("nan")
    return result
