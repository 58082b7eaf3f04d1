"""Batch renormalization: the batch's statistics, corrected towards the running ones."""

from dataclasses import dataclass, fields

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Scalar

from jbn._batch import Batch, Variant
from jbn._numerics.values import check_number, numbers_to_device
from jbn._pytrees import register_dataclass
from jbn._types import Affine, Moments, RunningStats
from jbn._variants._standard import Standard


@register_dataclass("r_max", "d_max")
@dataclass(frozen=True)
class Renorm:
    r"""Corrects the batch's statistics towards the running ones, within bounds.

    $$y = \gamma \left(\frac{x - \mu_B}{\sigma_B} r + d\right) + \beta, \qquad
      r = \text{clip}_{[1/r_{max}, r_{max}]} \frac{\sigma_B}{\sigma}, \qquad
      d = \text{clip}_{[-d_{max}, d_{max}]} \frac{\mu_B - \mu}{\sigma}$$

    with $\sigma_B^2 = \text{var}_B + \epsilon$ and $\sigma^2 = \text{var} + \epsilon$. No gradient
    flows through r and d. At (1, 0) it is `Standard`; where nothing is clipped, its values are
    those of inference. For small batches and batches that are not drawn at random. Let the running
    statistics settle first: a `RenormSchedule` begins at (1, 0) and widens both bounds. They may be
    traced, and do not recompile.

    Attributes:
      r_max: at least 1.
      d_max: at least 0.

    Raises:
      TypeError, ValueError: if a bound is not such a number.

    Ioffe 2017 (arXiv:1702.03275), Algorithm 1 and section 3.
    """

    r_max: float | Scalar = 3.0
    d_max: float | Scalar = 5.0

    def __post_init__(self) -> None:
        for name, value, low in (("r_max", self.r_max, 1.0), ("d_max", self.d_max, 0.0)):
            number = check_number(name, value, low=low, high=float("inf"))
            object.__setattr__(self, name, number)

    def __call__(
        self, batch: Batch, affine: Affine, stats: RunningStats, *, epsilon: Float[Array, ""]
    ) -> tuple[Float[Array, "*batch C"], Moments]:
        measured = batch.measure(epsilon)
        moments = measured.moments()
        dtype = moments.var.dtype
        scale, bias, mean, var = (v.astype(dtype) for v in (*affine, *stats))
        r_max, d_max, eps = (jnp.asarray(v, dtype) for v in (self.r_max, self.d_max, epsilon))
        deviation = jnp.sqrt(jnp.maximum(var, 0) + eps)
        r = jnp.clip(jnp.sqrt(moments.var + eps) / deviation, 1 / r_max, r_max)
        offset = (moments.mean - mean) + moments.remainder
        d = jnp.clip(offset / deviation, -d_max, d_max)
        r, d = lax.stop_gradient((r, d))
        corrected = Affine(scale * r, bias + scale * d)
        return batch.normalize(measured, corrected, epsilon), moments

    def population(self) -> Variant:
        return Standard()


@dataclass(frozen=True)
class RenormSchedule:
    r"""Widens the bounds of `Renorm` with the training step: batch norm first.

    $$r_{max}(t) = 1 + (r_{max} - 1)\, w_r, \quad d_{max}(t) = d_{max}\, w_d, \qquad
      w = \text{clip}_{[0, 1]} \frac{t - \text{warmup}}{\text{steps}}$$

    By default as published. With `r_steps=0, d_steps=0` the bounds open at once after `warmup`:
    `RenormSchedule(warmup=100_000, r_steps=0, d_steps=0)` is CrossQ's. As the `variant` of a layer
    it takes the layer's own count of training calls as its step.

    Attributes:
      warmup: steps of `Standard`.
      r_max, d_max: the bounds in the end.
      r_steps, d_steps: steps in which each is widened.

    Raises:
      TypeError, ValueError: if one is not such a number.

    Ioffe 2017 (arXiv:1702.03275), section 4; Bhatt et al. 2024 (arXiv:1902.05605), CrossQ.
    """

    warmup: int = 5_000
    r_max: float = 3.0
    r_steps: int = 35_000
    d_max: float = 5.0
    d_steps: int = 20_000

    def __post_init__(self) -> None:
        for field in fields(self):
            low = float(field.name == "r_max")
            check_number(field.name, getattr(self, field.name), low=low, high=float("inf"))

    def at(self, step: int | Scalar) -> Renorm:
        """Returns the variant of a step.

        Args:
          step: batches seen before this one, 0 at first; may be traced.

        >>> for step in (0, 5_000, 22_500, 40_000):
        ...     renorm = RenormSchedule().at(step)
        ...     print(renorm.r_max, renorm.d_max)
        1.0 0.0
        1.0 0.0
        2.0 4.375
        3.0 5.0
        """
        checked = check_number("step", step, low=0.0, high=float("inf"))
        with numbers_to_device():
            past = jnp.asarray(checked, jnp.float32) - self.warmup
            r, d = (
                jnp.clip(past / steps, 0, 1) if steps else (past >= 0).astype(jnp.float32)
                for steps in (self.r_steps, self.d_steps)
            )
            return Renorm(1 + (self.r_max - 1) * r, self.d_max * d)

    def population(self) -> Variant:
        return Standard()
