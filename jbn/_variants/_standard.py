"""Batch normalization as published: the batch's own statistics, gradient through both."""

from dataclasses import dataclass

from jaxtyping import Array, Float

from jbn._moments import frame_batch, leave
from jbn._normalize import frame_normalize
from jbn._pytrees import register_dataclass
from jbn._types import Affine, AxisName, Moments, RunningStats


@register_dataclass()
@dataclass(frozen=True)
class Standard:
    r"""Normalises with the mean and the biased variance of the whole batch.

    $$y = \gamma \frac{x - \mu_B}{\sqrt{\sigma_B^2 + \epsilon}} + \beta$$

    With an `axis_name` the batch is that of all devices. What a mask excludes is normalised too,
    with the statistics of the rest; NaN there comes out finite.

    Ioffe & Szegedy 2015 (arXiv:1502.03167), Algorithm 1.
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
        y = frame_normalize(frame, x, moments.mean, moments.var, *affine, epsilon)
        return y, leave(frame, moments)
