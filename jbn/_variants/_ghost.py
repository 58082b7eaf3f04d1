"""Ghost batch normalization: a large batch normalised in small groups."""

from dataclasses import dataclass, replace

import jax
from jaxtyping import Array, Float

from jbn._batch import Batch, Variant, population_of
from jbn._moments import pool_moments
from jbn._numerics.sharding import reshape_like
from jbn._numerics.values import as_int, check_variant
from jbn._pytrees import register_dataclass
from jbn._types import Affine, Moments, RunningStats
from jbn._variants._standard import Standard


@register_dataclass("base")
@dataclass(frozen=True)
class Ghost:
    r"""Normalises each group of `group_size` successive examples by itself, with `base`.

    $$y_i = \gamma \frac{x_i - \mu_g}{\sqrt{\sigma_g^2 + \epsilon}} + \beta
      \qquad \text{for } i \text{ in group } g$$

    The noise of small batches at the speed of large ones. The moments handed back, and so the
    running statistics, are those of the whole batch: groups pooled, and devices with an
    `axis_name`. Groups never cross devices. Examples are counted along the first axis of `x`.

    Attributes:
      group_size: examples in a group, at least 2; it must divide the batch. For `jax.export` write
        a symbolic batch as a multiple of it, "4*g".
      base: what normalises a group.

    Raises:
      ValueError: if `group_size` is below 2, or does not divide the batch.

    Hoffer, Hubara & Soudry 2017 (arXiv:1705.08741), section 4, Algorithm 1.
    """

    group_size: int
    base: Variant = Standard()

    def __post_init__(self) -> None:
        group_size = as_int(self.group_size)
        if group_size is None or group_size < 2:
            raise ValueError(f"group_size must be an int of at least 2, got {self.group_size!r}.")
        object.__setattr__(self, "group_size", group_size)
        check_variant("base", self.base)

    def __call__(
        self, batch: Batch, affine: Affine, stats: RunningStats, *, epsilon: Float[Array, ""]
    ) -> tuple[Float[Array, "*batch C"], Moments]:
        x = batch.x
        examples = x.shape[0]
        if x.ndim < 2 or examples % self.group_size:
            raise ValueError(
                f"{self} needs a batch it divides, got x.shape[0]={examples}. Drop the ragged "
                f"last batch, or pick a divisor of {examples}."
            )
        groups = batch.groups(self.group_size)
        rows = replace(groups, values=0, mask=0, guess=None)
        y, parts = jax.vmap(
            lambda group: self.base(group, affine, stats, epsilon=epsilon), in_axes=(rows,)
        )(groups)
        return reshape_like(y, x), batch.sync(pool_moments(parts))

    def population(self) -> Variant:
        return population_of(self.base)
