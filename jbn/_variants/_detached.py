"""Batch norm with parts of its gradient cut: what is the derivative of the statistics good for?"""

from dataclasses import dataclass

from jax import lax
from jaxtyping import Array, Float

from jbn._moments import frame_batch, leave
from jbn._normalize import frame_normalize
from jbn._pytrees import register_dataclass
from jbn._types import Affine, AxisName, Moments, RunningStats


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
        mean = lax.stop_gradient(moments.mean) if self.mean else moments.mean
        var = lax.stop_gradient(moments.var) if self.var else moments.var
        y = frame_normalize(frame, x, mean, var, *affine, epsilon)
        return y, leave(frame, moments)
