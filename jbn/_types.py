"""Records of arrays: `Moments` of a batch, `RunningStats` for inference, `Affine` to be learned."""

from collections.abc import Hashable
from numbers import Number
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Inexact

from jbn._numerics.sharding import is_explicit
from jbn._pytrees import differ, equal, register_export, register_record

AxisName: TypeAlias = Hashable | tuple[Hashable, ...]
# jaxtyping's, which checks as much while running, is unknown to type checkers on purpose.
PyTree: TypeAlias = Any


class Moments(tuple):
    """Mean, biased variance and sample size of the examples of one batch, per feature.

    A named tuple of these three. As a pytree it has a fourth leaf, `remainder`: the part of the
    mean that rounding to the type of `mean` took away, so that `mean + remainder` is the mean to
    twice that type's digits. With it the moments of parts pool exactly also where the mean is
    millions of standard deviations (`pool_moments`). By default it is zero.

    Attributes:
      mean: of the examples.
      var: divided by `size`, not `size - 1`; see `bessel_correction`.
      size: the count of examples behind each mean, after masks and over all devices.
      remainder: the rest of the mean, below half a unit in its last place.
    """

    _fields = ("mean", "var", "size")
    mean: Inexact[Array, "*stack C"] = property(itemgetter(0))  # type: ignore[assignment]
    var: Float[Array, "*stack C"] = property(itemgetter(1))  # type: ignore[assignment]
    size: Float[Array, "*stack C"] = property(itemgetter(2))  # type: ignore[assignment]
    remainder: Inexact[Array, "*stack C"]

    def __new__(cls, mean: Any, var: Any, size: Any, remainder: Any = None) -> "Moments":
        self = super().__new__(cls, (mean, var, size))
        self.remainder = _zeros_like(mean) if remainder is None else remainder
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (*self, self.remainder)

    def __repr__(self) -> str:
        fields = self._asdict() | {"remainder": self.remainder}
        return f"Moments({', '.join(f'{name}={value}' for name, value in fields.items())})"

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self))

    def _replace(self, **fields: Any) -> "Moments":
        return Moments(**(self._asdict() | {"remainder": self.remainder} | fields))


def _zeros_like(mean: Any) -> Any:
    """Returns zeros for an array or a number; for a placeholder (a `PartitionSpec`), itself."""
    if isinstance(mean, Number):
        return 0.0
    if isinstance(mean, jax.Array) and is_explicit(mean):
        # Made from the mean, as JAX makes no constant on a mesh that is not in use.
        return jnp.clip(lax.stop_gradient(mean), 0, 0)
    return jnp.zeros_like(mean) if isinstance(mean, jax.Array | np.ndarray) else mean


jax.tree_util.register_pytree_with_keys(
    Moments,
    lambda moments: (
        [
            (jax.tree_util.GetAttrKey(name), getattr(moments, name))
            for name in (*Moments._fields, "remainder")
        ],
        None,
    ),
    lambda _, leaves: Moments(*leaves),
)
register_export(Moments)
# Set here, because a type checker takes each for a changed signature in the class.
Moments.__eq__, Moments.__ne__, Moments.__hash__ = equal, differ, None  # type: ignore[assignment]


@register_record
class RunningStats(NamedTuple):
    """The mean and variance that inference normalises with; carries no gradient.

    Before any training they are 0 and 1: inference is then only the affine map.
    """

    mean: Inexact[Array, "C"]
    var: Float[Array, "C"]


@register_record
class Affine(NamedTuple):
    """The learned scale and bias of each feature (gamma and beta of Ioffe & Szegedy 2015)."""

    scale: Inexact[Array, "C"]
    bias: Inexact[Array, "C"]
