"""Batch norm without centring: division by the root mean square, and no subtraction."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jbn._batch import Batch, Variant
from jbn._numerics.frame import Frame, range_factor
from jbn._numerics.measure import Measured
from jbn._pytrees import register_dataclass
from jbn._types import Affine, Moments, RunningStats


@register_dataclass()
@dataclass(frozen=True)
class Uncentered:
    r"""Normalises with the second moment of the batch about zero.

    $$y = \gamma \frac{x}{\sqrt{\frac1n \sum_i x_i^2 + \epsilon}} + \beta$$

    The moments handed back are about zero too: a mean of 0 and the second moment as variance,
    so that inference with the running statistics does what training did.

    Daneshmand et al. 2020 (arXiv:2003.01652), section 2, study batch norm in this form.
    """

    def __call__(
        self, batch: Batch, affine: Affine, stats: RunningStats, *, epsilon: Float[Array, ""]
    ) -> tuple[Float[Array, "*batch C"], Moments]:
        measured = batch.measure(epsilon)
        # In units where the square of the mean is in range too, wherever the mean is.
        origin = lax.stop_gradient(measured.frame.shift + measured.mean)
        measured = measured.with_factor(range_factor(measured.frame.factor, jnp.abs(origin)))
        frame, mean, var, size = measured
        second = var + jnp.square(frame.shift + mean)
        zero = jnp.zeros_like(mean)
        measured = Measured(Frame(frame.factor, zero), zero, second, size)
        return batch.normalize(measured, affine, epsilon), measured.moments()

    def population(self) -> Variant:
        return self
