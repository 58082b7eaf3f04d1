"""Batch norm by the running statistics, in training too, while batches still move them."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jbn._batch import Batch, Variant
from jbn._pytrees import register_dataclass
from jbn._types import Affine, Moments, RunningStats
from jbn._variants._standard import Standard


@register_dataclass()
@dataclass(frozen=True)
class Running:
    r"""Normalises with the running statistics, through which no gradient flows.

    $$y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta$$

    Training then sees exactly what inference will, one update behind, and examples do not depend on
    each other; but nothing holds the scale of `x`, and deep networks often diverge this way.
    Begin from statistics that fit (`recalibrate`, or some steps of `Standard`).

    Ioffe & Szegedy 2015 (arXiv:1502.03167), section 2, describe the failure.
    """

    def __call__(
        self, batch: Batch, affine: Affine, stats: RunningStats, *, epsilon: Float[Array, ""]
    ) -> tuple[Float[Array, "*batch C"], Moments]:
        mean, var = lax.stop_gradient(stats)
        moments = batch.measure(epsilon).moments()
        running = Moments(mean.astype(moments.mean.dtype), jnp.maximum(var, 0), moments.size)
        return batch.normalize(running, affine, epsilon), moments

    def population(self) -> Variant:
        return Standard()
