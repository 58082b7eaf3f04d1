"""Batch norm with the gradient through its mean, its variance or both stopped."""

from dataclasses import dataclass

from jax import lax
from jaxtyping import Array, Float

from jbn._batch import Batch, Variant
from jbn._numerics.measure import Measured
from jbn._pytrees import register_dataclass
from jbn._types import Affine, Moments, RunningStats
from jbn._variants._standard import Standard


@register_dataclass()
@dataclass(frozen=True)
class Detached:
    r"""`Standard` forward; backward the mean, the variance or both count as constants.

    $$\frac{\partial L}{\partial x_i} = \frac{\gamma}{\sigma_B} \left( g_i
      - \overline{g}\,[\text{mean kept}] - \hat x_i \overline{g \hat x}\,[\text{var kept}] \right)$$

    With both cut, the gradient no longer keeps the scale of the weights before it in check, and
    training can blow up.

    Attributes:
      mean, var: whether its gradient is stopped.

    Ioffe & Szegedy 2015 (arXiv:1502.03167), section 2, argue that it must not be.
    """

    mean: bool = True
    var: bool = True

    def __call__(
        self, batch: Batch, affine: Affine, stats: RunningStats, *, epsilon: Float[Array, ""]
    ) -> tuple[Float[Array, "*batch C"], Moments]:
        measured = batch.measure(epsilon)
        frame, mean, var, size = measured
        if self.mean:
            frame, mean = lax.stop_gradient((frame, mean))
        if self.var:
            var = lax.stop_gradient(var)
        detached = Measured(frame, mean, var, size)
        return batch.normalize(detached, affine, epsilon), measured.moments()

    def population(self) -> Variant:
        return Standard()
