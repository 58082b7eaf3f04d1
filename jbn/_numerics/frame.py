"""Units in which sums over a batch neither cancel nor overflow, per feature.

`E[x^2] - E[x]^2` loses everything when the mean is large beside the spread, and squares overflow
above 1.8e19. In the units `u = factor * x - shift`, with a shift near the mean and a factor that is
a power of two, neither happens, and the change of units adds no rounding error.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jbn._numerics.arrays import per_feature, select

# How far the shift may be from the mean, in standard deviations: the rounding error of a variance
# grows by a factor of about 1 + DISTANCE^2.
DISTANCE = 1.0


class Frame(NamedTuple):
    """A change of units per feature; carries no gradient. `shift` is in the units of the frame."""

    factor: Float[Array, "C"]
    shift: Float[Array, "C"]

    def convert(self, x: Array) -> Array:
        """Returns `x` in the units of the frame."""
        wide = x.astype(self.factor.dtype)
        return wide * per_feature(self.factor, x) - per_feature(self.shift, x)

    def with_factor(self, factor: Array) -> "Frame":
        """Returns the frame in the units of another factor, unless its shift overflows there."""
        shift = self.shift * (factor / self.factor)
        fits = jnp.isfinite(shift)
        return Frame(select(fits, factor, self.factor), select(fits, shift, self.shift))


def frame_about(shift: Float[Array, "C"]) -> Frame:
    """Returns the frame about a guess of the mean, about zero where the guess is not finite."""
    return Frame(jnp.ones_like(shift), select(jnp.isfinite(shift), shift, 0))


def is_settled(frame: Frame, mean: Array, var: Array) -> Bool[Array, "C"]:
    """Tells whether sums in `frame` gave the moments of each feature to rounding.

    Not if the shift was far from the mean, or if squares overflowed or underflowed. Where the data
    are not finite no frame helps: settled.
    """
    low, _, tiny, huge = _limits(var.dtype)
    near = mean * mean <= DISTANCE**2 * var
    constant = (mean == 0) & (var == 0) & (frame.factor >= 1)
    hopeless = ~jnp.isfinite(var) & (frame.factor <= tiny)
    return (near & ((var > low) | (frame.factor >= huge))) | constant | hopeless


def better_frame(frame: Frame, mean: Array, var: Array) -> Frame:
    """Moves `frame` to the mean that its sums gave, its factor changed where they failed."""
    low, _, tiny, huge = _limits(var.dtype)
    larger = select(frame.factor < 1, jnp.ones_like(frame.factor), huge)
    factor = select(var <= low, larger, frame.factor)
    factor = select(jnp.isfinite(var), factor, tiny)
    shift = frame.shift + select(jnp.isfinite(mean), mean, 0)
    return Frame(frame.factor, shift).with_factor(factor)


def unit_frame(frame: Frame, var: Array, epsilon: Array) -> Frame:
    """Changes the units of `frame` where variance plus epsilon is far from one, to near one.

    Derivatives of any order contain its powers, which then neither overflow nor underflow.
    """
    _, high, _, _ = _limits(var.dtype)
    total = jnp.maximum(var, 0) + epsilon * frame.factor * frame.factor
    far = (total > high) | ((total < 1 / high) & (total > 0))
    power = power_of_two(lax.rsqrt(select(far, total, 1)))
    return frame.with_factor(clip_to_normal(frame.factor * power))


def range_factor(factor: Array, extent: Array) -> Array:
    """Reduces `factor` where squares of numbers as large as `extent`, in its units, are unsafe."""
    _, high, _, _ = _limits(extent.dtype)
    return clip_to_normal(factor * power_of_two(select(extent > high**0.5, 1 / extent, 1)))


def power_of_two(number: Array) -> Array:
    """Rounds a positive number to a power of two, by which to multiply rounds nothing."""
    info = jnp.finfo(number.dtype)
    return lax.reduce_precision(number, exponent_bits=info.nexp, mantissa_bits=0)


def clip_to_normal(factor: Array) -> Array:
    """Clips `factor` to where it and its inverse are normal numbers."""
    largest = 2.0 ** (int(jnp.finfo(factor.dtype).maxexp) - 3)
    return jnp.clip(factor, 1 / largest, largest)


def _limits(dtype) -> tuple[float, float, float, float]:
    """Returns powers of two: 2^-96, 2^32, 2^-80 and 2^40 in float32.

    Below the first, squares that underflow count in a variance; above the second, its powers are
    not safe. Under the third as factor the squares of any finite numbers can be summed, and under
    the fourth those of the smallest standard deviations.
    """
    exponent = int(jnp.finfo(dtype).maxexp)
    return (
        2.0 ** -(3 * exponent // 4),
        2.0 ** (exponent // 4),
        2.0 ** -(5 * exponent // 8),
        2.0 ** (5 * exponent // 16),
    )
