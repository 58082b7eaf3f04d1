"""Units in which a batch is easy on floating point: every feature near zero and of modest size.

`E[x^2] - E[x]^2` loses everything when the mean is large beside the spread, and squares overflow
above 1.8e19. In the frame `u = factor * x - shift` neither happens, whatever `x` is, and because
`factor` is a power of two, entering the frame rounds nothing that the data did not lose before.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jbn._arrays import per_feature, statistics_dtype


class Frame(NamedTuple):
    """A change of units per feature; carries no gradient. `shift` is in the units of the frame."""

    factor: Float[Array, "*stack C"]
    shift: Float[Array, "*stack C"]


def identity_frame(like: Float[Array, "C"]) -> Frame:
    return Frame(jnp.ones_like(like), jnp.zeros_like(like))


def enter(frame: Frame, x: Array) -> Array:
    """`x` in the units of the frame."""
    wide = x.astype(frame.factor.dtype)
    return wide * per_feature(frame.factor, x) - per_feature(frame.shift, x)


def choose_frame(x: Float[Array, "*batch C"], mask: Bool[Array, "..."] | None = None) -> Frame:
    """The frame of a batch. Any shift among the bulk of the data will do: it costs no sweep.

    Without a mask it is the median of the first, the middle and the last row, so that an outlier
    in one of them does no harm. Under a mask it is the mean of what counts.
    """
    rows = lax.stop_gradient(x).reshape(-1, x.shape[-1]).astype(statistics_dtype(x.dtype))
    if mask is None:
        middle = rows.shape[0] // 2
        # Slices, because an exported function may not know its batch size yet.
        a, b, c = rows[0], rows[middle : middle + 1][0], rows[-1]
        low, high = jnp.minimum(a, b), jnp.maximum(a, b)
        factor = _safe_factor(jnp.minimum(low, c), jnp.maximum(high, c))
        return Frame(factor, jnp.maximum(low, jnp.minimum(high, c)) * factor)

    valid = jnp.broadcast_to(mask, x.shape).reshape(rows.shape)
    first = jnp.take_along_axis(rows, jnp.argmax(valid, axis=0, keepdims=True), axis=0)
    rows = jnp.where(valid, rows, first)
    factor = _safe_factor(jnp.min(rows, axis=0), jnp.max(rows, axis=0))
    start = first * factor[None]
    count = jnp.maximum(jnp.sum(valid, axis=0, dtype=rows.dtype), 1)
    # Measured from one value, so that a constant feature has exactly that value as its shift.
    return Frame(factor, start[0] + jnp.sum(rows * factor[None] - start, axis=0) / count)


def _safe_factor(low: Array, high: Array) -> Array:
    """1 where squares of the spread are safe to sum, else a power of two that makes them so."""
    info = jnp.finfo(low.dtype)
    safe, largest = 2.0 ** (info.maxexp // 3), 2.0 ** (info.maxexp - 2)
    spread = high / 4 - low / 4  # of two numbers near the largest, this still fits
    power = lax.reduce_precision(
        jnp.clip(spread, safe, largest), exponent_bits=info.nexp, mantissa_bits=0
    )
    return jnp.where(spread > safe, 1 / power, jnp.ones_like(spread))


def common_frame(frames: Frame, present: Bool[Array, "K C"]) -> Frame:
    """One frame for the parts of a batch: the smallest factor, the first present part's shift."""
    factor = jnp.min(frames.factor, axis=0, keepdims=True, where=present, initial=1)
    first = jnp.argmax(present, axis=0, keepdims=True)
    shift, own = (
        jnp.take_along_axis(leaf, first, axis=0) for leaf in (frames.shift, frames.factor)
    )
    return Frame(factor[0], (shift * (factor / own))[0])
