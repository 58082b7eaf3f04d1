"""Units in which a batch is easy on floating point: every feature near zero and of modest size.

`E[x^2] - E[x]^2` loses everything when the mean is large beside the spread, and squares overflow
above 1.8e19. In the frame `u = factor * x - shift` neither happens, whatever `x` is, and because
`factor` is a power of two, entering the frame rounds nothing that the data did not lose before.
"""

import math
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
    """The frame of a batch: any value inside the data will do as `shift`, the mean does best.

    Looks at about sqrt(N) rows spread over the batch (at all the valid ones under a mask). Were
    one of them an outlier D, the shift would move by D / sqrt(N), which is no more than the
    standard deviation that D itself causes.
    """
    rows = lax.stop_gradient(x).reshape(-1, x.shape[-1]).astype(statistics_dtype(x.dtype))
    if mask is None:
        rows = rows[:: math.isqrt(rows.shape[0])]
        valid, first = jnp.ones_like(rows, bool), rows[:1]
    else:
        valid = jnp.broadcast_to(mask, x.shape).reshape(rows.shape)
        first = jnp.take_along_axis(rows, jnp.argmax(valid, axis=0, keepdims=True), axis=0)

    spread = jnp.max(jnp.abs(rows - first), axis=0, keepdims=True, initial=0, where=valid)
    factor = _shrinking_factor(spread)
    # Measured from one value, so that a constant feature has exactly that value as its shift.
    start = first * factor
    shift = start + jnp.mean(rows * factor - start, axis=0, keepdims=True, where=valid)
    return Frame(factor[0], jnp.where(jnp.any(valid, axis=0), shift[0], 0))


def _shrinking_factor(spread: Array) -> Array:
    """1 where squares of `spread` are safe to sum, else the power of two that brings it to 1."""
    info = jnp.finfo(spread.dtype)
    safe = 2.0 ** (info.maxexp // 3)
    peak = jnp.clip(spread, safe, 2.0 ** (info.maxexp - 2))
    power = lax.reduce_precision(peak, exponent_bits=info.nexp, mantissa_bits=0)
    return jnp.where(spread > safe, 1 / power, jnp.ones_like(spread))


def common_frame(frames: Frame, present: Bool[Array, "K C"]) -> Frame:
    """One frame for the parts of a batch: the smallest factor, the first present part's shift."""
    factor = jnp.min(frames.factor, axis=0, keepdims=True, where=present, initial=1)
    first = jnp.argmax(present, axis=0, keepdims=True)
    shift, own = (
        jnp.take_along_axis(leaf, first, axis=0) for leaf in (frames.shift, frames.factor)
    )
    return Frame(factor[0], (shift * (factor / own))[0])
