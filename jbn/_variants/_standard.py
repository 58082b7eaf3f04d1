"""Batch normalization as published: the batch's own statistics, gradient through both."""

from dataclasses import dataclass

from jaxtyping import Array, Float

from jbn._batch import Batch, Variant
from jbn._pytrees import register_dataclass
from jbn._types import Affine, Moments, RunningStats


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
        self, batch: Batch, affine: Affine, stats: RunningStats, *, epsilon: Float[Array, ""]
    ) -> tuple[Float[Array, "*batch C"], Moments]:
        measured = batch.measure(epsilon)
        return batch.normalize(measured, affine, epsilon), measured.moments()

    def population(self) -> Variant:
        return self
