"""Batch norm without centring: divide by the root mean square, subtract nothing."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from jbn._moments import frame_batch, leave
from jbn._normalize import frame_normalize
from jbn._pytrees import register_dataclass
from jbn._types import Affine, AxisName, Moments, RunningStats


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
        self,
        x: Float[Array, "*batch C"],
        affine: Affine,
        stats: RunningStats,
        *,
        epsilon: Float[Array, ""],
        mask: Array | None,
        axis_name: AxisName | None,
    ) -> tuple[Float[Array, "*batch C"], Moments]:
        x, frame, moments = frame_batch(x, mask, axis_name)
        origin = frame.shift + moments.mean
        second = moments._replace(mean=-frame.shift, var=moments.var + jnp.square(origin))
        y = frame_normalize(frame, x, second.mean, second.var, *affine, epsilon)
        return y, leave(frame, second)
