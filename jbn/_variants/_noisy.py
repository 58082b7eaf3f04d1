"""Noise after batch norm: the distribution made unstable on purpose."""

from dataclasses import dataclass
from functools import partial

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from jbn._batch import Batch, Variant, population_of
from jbn._numerics.values import check_number, check_variant
from jbn._pytrees import register_dataclass
from jbn._types import Affine, Moments, RunningStats
from jbn._variants._standard import Standard


@register_dataclass("key", "base")
@dataclass(frozen=True)
class Noisy:
    r"""Shifts and stretches the output of `base` by noise drawn anew from `key`.

    $$y \leftarrow s_{ij}\, y + m_{ij}, \qquad m_{ij} \sim U(m_j - r, m_j + r), \quad
      s_{ij} \sim N(s_j, r^2), \quad m_j \sim U(-n_\mu, n_\mu), \quad s_j \sim U(1, n_\sigma)$$

    for example i and feature j. The key is part of the value: give a new one at each step, or the
    noise is the same. It does not recompile. The moments are those that `base` saw, without noise;
    inference has none.

    Attributes:
      key: of `jax.random`; on several devices, one for each.
      mean: $n_\mu$, the largest mean of a feature.
      scale: $n_\sigma$, the largest scale of a feature.
      spread: $r$, how far an example's noise is from its feature's.
      base: what normalises.

    Raises:
      TypeError, ValueError: if one of the numbers is none, or too small.

    Santurkar, Tsipras, Ilyas & Madry 2018 (arXiv:1805.11604), section 2.1 and appendix A.
    """

    key: PRNGKeyArray
    mean: float = 0.5
    scale: float = 1.25
    spread: float = 0.1
    base: Variant = Standard()

    def __post_init__(self) -> None:
        for name, low in (("mean", 0.0), ("scale", 1.0), ("spread", 0.0)):
            number = check_number(name, getattr(self, name), low=low, high=float("inf"))
            object.__setattr__(self, name, number)
        check_variant("base", self.base)

    def __call__(
        self, batch: Batch, affine: Affine, stats: RunningStats, *, epsilon: Float[Array, ""]
    ) -> tuple[Float[Array, "*batch C"], Moments]:
        y, moments = self.base(batch, affine, stats, epsilon=epsilon)
        feature_mean, feature_scale, mean, scale = jax.random.split(self.key, 4)
        one = (1,) * (y.ndim - 1) + y.shape[-1:]
        draw = partial(jax.random.uniform, dtype=y.dtype)
        center = draw(feature_mean, one, minval=-self.mean, maxval=self.mean)
        stretch = draw(feature_scale, one, minval=1.0, maxval=self.scale)
        shift = center + draw(mean, y.shape, minval=-self.spread, maxval=self.spread)
        scale = stretch + self.spread * jax.random.normal(scale, y.shape, y.dtype)
        return scale * y + shift, moments

    def population(self) -> Variant:
        return population_of(self.base)
