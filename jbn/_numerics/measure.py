"""Mean and variance of a batch by sweeps about a shift, with their derivative.

One sweep about a guess of the mean, the running mean for example, is enough on ordinary data. Where
it shows that the guess was too far away, a loop sweeps again about the mean it found; on ordinary
data the loop runs no iteration. The loop lies inside a primal with a derivative rule of its own, so
that no derivative passes through it.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jbn._numerics.arrays import batch_axes, per_feature, select
from jbn._numerics.blocks import sum_batch
from jbn._numerics.columns import sum_squares
from jbn._numerics.frame import Frame, better_frame, frame_about, is_settled, unit_frame
from jbn._numerics.sharding import like_features
from jbn._types import Moments

# Sweeps that a feature may take: a guess that is 1e30 deviations away takes six.
SWEEPS = 9


class Values(NamedTuple):
    """An array in its own type, and the same widened to the type of its statistics.

    Kernels read the first and widen it inside; derivatives flow through the second, so that the
    terms of a gradient are added in float32 before they are rounded, once.
    """

    stored: Array
    wide: Array

    @classmethod
    def of(cls, x: Array, dtype: Any) -> "Values":
        return cls(lax.stop_gradient(x), x.astype(dtype))


class Measured(NamedTuple):
    """Moments in the units of a frame: `mean` is the mean less the frame's shift."""

    frame: Frame
    mean: Float[Array, "C"]
    var: Float[Array, "C"]
    size: Float[Array, "C"]

    @classmethod
    def about(cls, moments: Moments) -> "Measured":
        """Puts moments in a frame about their mean.

        Its factor is small where the variance is large: numbers that far apart may differ by more
        than the largest.
        """
        mean, var, size = moments
        measured = cls(Frame(jnp.ones_like(mean), mean), moments.remainder, var, size)
        return measured.with_factor(select(var > 2.0**32, 2.0**-32, jnp.ones_like(var)))

    def with_factor(self, factor: Float[Array, "C"]) -> "Measured":
        """Returns the moments in the units of another factor."""
        factor = jnp.broadcast_to(factor, self.mean.shape)
        ratio = factor / self.frame.factor
        frame = Frame(factor, self.frame.shift * ratio)
        # Not times the square of the ratio, which overflows where the variance still fits.
        return Measured(frame, self.mean * ratio, self.var * ratio * ratio, self.size)

    def moments(self) -> Moments:
        """Returns the moments in the units of the data; a variance beyond its type is inf."""
        frame, mean, var, size = self.with_factor(jnp.ones_like(self.mean))
        total, remainder = two_sum(frame.shift, mean)
        return Moments(total, var, size, remainder)


def measure(values: Values, mask: Array | None, guess: Float[Array, "C"], epsilon) -> Measured:
    """Measures the values that `mask` counts, by sweeps that begin about `guess`.

    Right to rounding for any guess; one within a standard deviation of the mean takes one sweep.
    The frame's factor keeps the powers of variance plus `epsilon` in range.
    """
    size = sample_size(values.stored, mask, values.wide.dtype)
    guess, epsilon = lax.stop_gradient((guess, epsilon))
    guess, epsilon = guess.astype(size.dtype), jnp.asarray(epsilon, size.dtype)
    size, guess = (like_features(vector, values.stored) for vector in (size, guess))
    frame, mean, var = _measure(values, mask, jnp.maximum(size, 1), guess, epsilon)
    return Measured(frame, mean, var, size)


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Returns `a + b` rounded, and what rounding took away (Knuth)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def sample_size(x: Array, mask: Array | None, dtype) -> Float[Array, "C"]:
    """Returns how many numbers of each feature `mask` counts."""
    if mask is None:
        size = jnp.full((), math.prod(x.shape[:-1]), dtype)
    else:
        # An axis of length one in the mask stands for all of that axis of x.
        repeats = math.prod(x.shape[:-1]) // math.prod(mask.shape[:-1])
        size = jnp.sum(mask, axis=batch_axes(mask), dtype=dtype) * repeats
    return jnp.broadcast_to(size, x.shape[-1:])


def zero_excluded(mask: Array | None, term: Array) -> Array:
    """Zeroes `term` where `mask` does not count."""
    return term if mask is None else jnp.where(mask, term, jnp.zeros_like(term))


@jax.custom_jvp
def _measure(values: Values, mask, size, guess, epsilon) -> tuple[Frame, Array, Array]:
    """Returns the frame that served, and mean and variance in it."""

    @partial(jax.jit, inline=True)  # traced once, for the loop and for the sweep before it
    def sweep(carry):
        _, state = carry
        frame = Frame(state[1], state[2])
        mean, var = _mean_and_var(values.stored, frame, mask, size)
        # A settled feature has no sweeps left, and stays as it is whatever others need.
        new = jnp.where(state[0] > 0, _after_sweep(state[0], frame, mean, var, epsilon), state)
        # On a CPU a sum is a kernel that is there already; `any` would be three to compile.
        return jnp.sum(new[0]) > 0, new

    # One array: a few large kernels instead of many small ones.
    first = jnp.stack([jnp.full_like(guess, SWEEPS), *frame_about(guess), guess, guess])
    carry = jnp.ones((), bool), first
    if jax.typeof(values.stored).sharding.mesh.empty:
        # Before the loop the first sweep's sums are fused into what makes x. Not so on a CPU, where
        # the loop alone is half as much to compile.
        carry = lax.platform_dependent(carry, cpu=lambda carry: carry, default=sweep)
    else:
        carry = sweep(carry)
    carry = lax.while_loop(lambda carry: carry[0], sweep, carry)
    _, (_, factor, shift, mean, var) = carry
    return Frame(factor, shift), mean, var


def _after_sweep(remaining: Array, frame: Frame, mean: Array, var: Array, epsilon: Array) -> Array:
    """Returns the sweeps that each feature still needs, and a frame with mean and variance."""
    settled = is_settled(frame, mean, var) | (remaining <= 1)
    unit, better = unit_frame(frame, var, epsilon), better_frame(frame, mean, var)
    ratio = unit.factor / frame.factor
    # NaN, an overflow, stays NaN: the running statistics skip it, where inf would give y = bias.
    moments = mean * ratio, jnp.maximum(var, 0) * ratio * ratio
    frame = Frame(*(select(settled, a, b) for a, b in zip(unit, better)))
    return jnp.stack([select(settled, 0, remaining - 1), *frame, *moments])


def _mean_and_var(x: Array, frame: Frame, mask, size) -> tuple[Array, Array]:
    """Sums the moments in the units of `frame`; the variance may be just below zero, or nan."""

    def terms(x, mask):
        u = zero_excluded(mask, frame.convert(x))
        return u, u * u

    if mask is None:
        total, squares = sum_squares(x, frame)
    else:
        mask = jnp.broadcast_to(mask, (*x.shape[:-1], mask.shape[-1]))
        total, squares = sum_batch(terms, x, mask)
    mean = total / size
    var = squares / size - mean * mean
    return mean, select(jnp.isfinite(squares), var, jnp.nan)


@_measure.defjvp
def _measure_jvp(primals, tangents):
    # d mean = mean(dx),  d var = 2 mean((x - mean) dx). JAX transposes this pair into the closed
    # form backward pass; being a jvp, it also serves jvp, hessian and vmap.
    values, mask, size, _, _ = primals
    frame, mean, var = _measure(*primals)

    # Rematerialised: what waits for the backward pass is x itself, not x - mean beside it.
    @partial(jax.checkpoint, prevent_cse=False)
    def tangent(dx, wide, mask, size, frame, mean):
        du = zero_excluded(mask, dx * per_feature(frame.factor, dx))
        centred = frame.convert(wide) - per_feature(mean, dx)
        axes = batch_axes(dx)
        return jnp.sum(du, axis=axes) / size, 2 * jnp.sum(centred * du, axis=axes) / size

    dmean, dvar = tangent(tangents[0].wide, values.wide, mask, size, frame, mean)
    still = Frame(*(jnp.zeros_like(vector) for vector in frame))
    return (frame, mean, var), (still, dmean, dvar)
