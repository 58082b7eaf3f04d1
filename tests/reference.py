"""Batch norm in numpy's extended precision, written from the formulas, to hold the library to."""

import math
from typing import NamedTuple

import numpy as np


class Reference(NamedTuple):
    y: np.ndarray
    mean: np.ndarray
    var: np.ndarray
    size: np.ndarray
    dx: np.ndarray
    dscale: np.ndarray
    dbias: np.ndarray
    bounds: dict[str, np.ndarray]  # what an error of one means, for each of the above


def batch_norm(
    x, scale, bias, cotangent, *, epsilon=1e-5, mask=None, epsilon_dtype=np.float32
) -> Reference:
    """Values, statistics, and gradients of sum(cotangent * y), features last."""
    x, scale, bias, cotangent = (
        np.asarray(a).astype(np.longdouble) for a in (x, scale, bias, cotangent)
    )
    mask = np.ones(x.shape, bool) if mask is None else np.asarray(mask)
    mask = np.broadcast_to(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x.shape)
    axes = tuple(range(x.ndim - 1))
    size = mask.sum(axes)
    n = np.maximum(size, 1)
    x = np.where(mask | np.isfinite(x), x, 0)
    centred, mean = centre(x, mask, axes, n)
    var = np.where(mask, centred, 0).__pow__(2).sum(axes) / n
    deviation = np.sqrt(var + np.longdouble(epsilon_dtype(epsilon)))
    xhat = centred / deviation
    dscale, dbias = (cotangent * xhat).sum(axes), cotangent.sum(axes)
    through_moments = np.where(mask, dbias + xhat * dscale, 0) / n
    dx = scale / deviation * (cotangent - through_moments)
    y = xhat * scale + bias
    # Errors are judged against what rounding the inputs of each quantity would cost.
    bounds = {
        "y": np.abs(y - bias).max(axes) + np.abs(bias) + np.abs(scale),
        "mean": np.abs(mean) + deviation,
        "var": deviation**2,
        "dx": np.abs(scale) * np.abs(cotangent).max(axes) / deviation,
        "dscale": np.abs(cotangent * xhat).sum(axes),
        "dbias": np.abs(cotangent).sum(axes),
    }
    return Reference(y, mean, var, size, dx, dscale, dbias, bounds)


def centre(x, mask, axes, size):
    """`x` less its mean, and the mean. Twice, as the mean too is rounded, which double precision
    would notice where it is a million deviations."""
    mean = np.where(mask, x, 0).sum(axes) / size
    centred = x - mean
    rest = np.where(mask, centred, 0).sum(axes) / size
    return centred - rest, mean + rest


def directional(x, scale, cotangent, direction, *, epsilon=1e-5, mask=None, order=2):
    """Derivatives along `direction`, from the first to `order`, of the gradient of sum(ct * y).

    Batch norm in the arithmetic of power series in t, of x + t * direction, cut after t^order:
    nothing is shared with the formulas above, and nothing is approximated.
    """
    x, scale, cotangent, direction = (
        np.asarray(a).astype(np.longdouble) for a in (x, scale, cotangent, direction)
    )
    axes = tuple(range(x.ndim - 1))
    mask = np.ones(x.shape, bool) if mask is None else np.asarray(mask)
    mask = np.broadcast_to(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x.shape)
    size = np.maximum(mask.sum(axes), 1)

    def times(a, b):
        return [sum(a[j] * b[k - j] for j in range(k + 1)) for k in range(len(a))]

    def mean(a):
        return [np.where(mask, term, 0).sum(axes) / size for term in a]

    series = [np.where(mask, x, 0), np.where(mask, direction, 0)]
    series += [np.zeros_like(x)] * (order - 1)
    centred = [term - m for term, m in zip(series, mean(series))]
    var = mean(times(centred, centred))
    var[0] = var[0] + np.longdouble(np.float32(epsilon))
    precision = [1 / np.sqrt(var[0])]
    for k in range(1, order + 1):  # p = var^-1/2 solves p' var = -p var' / 2
        terms = ((j / 2 - k) * var[j] * precision[k - j] for j in range(1, k + 1))
        precision.append(sum(terms) / (k * var[0]))
    xhat = times(centred, precision)
    ct = [np.where(mask, cotangent, 0)] + [np.zeros_like(x)] * order
    through = times(xhat, mean(times(ct, xhat)))
    through[0] = through[0] + mean(ct)[0]
    gradient = times(precision, [c - t for c, t in zip(ct, through)])
    return [math.factorial(k) * scale * gradient[k] for k in range(1, order + 1)]


TOLERANCES = {"y": 5e-6, "mean": 1e-6, "var": 1e-5, "dx": 5e-6, "dscale": 1e-5, "dbias": 1e-6}


def assert_matches(ref: Reference, *, where=True, tolerances=TOLERANCES, **actual) -> None:
    """Each of `actual` (y, mean, ...) must match `ref`; `where` picks the elements of y and dx."""
    for name, value in actual.items():
        value = np.asarray(value).astype(np.longdouble)
        error = np.abs(value - getattr(ref, name))
        # Terms below the smallest normal number may be flushed to zero.
        tiny = np.finfo(np.float32).tiny
        ratio = np.maximum(error - 4 * tiny, 0) / np.maximum(ref.bounds[name], tiny)
        ratio = np.where(where if name in ("y", "dx") else True, ratio, 0)
        assert np.max(ratio) < tolerances[name], f"{name} is off by {np.max(ratio):.2g}"
