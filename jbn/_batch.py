"""A checked batch as variants see it, and the protocol of a variant."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Inexact

from jbn._arrays import statistics_dtype
from jbn._measure import Measured, Values, measure
from jbn._moments import clean_padding, sync_measured
from jbn._normalize import apply_moments
from jbn._sharding import split_first
from jbn._types import Affine, AxisName, Moments, RunningStats

# Names what a rematerialised layer need not measure again.
MEASURED = "batch moments"


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "mask", "guess"],
    meta_fields=["axis_name"],
)
@dataclass(frozen=True)
class Batch:
    """One batch, or this device's part of it, features last.

    Attributes:
      values: the examples; what the mask excludes is finite.
      mask: True where an example or an element counts, with as many axes as `x`; None: all do.
      guess: the mean as far as it is known beforehand, the running mean for example.
      axis_name: the devices that hold the rest of the batch; None: it is here.
    """

    values: Values
    mask: Bool[Array, "*batch #C"] | None
    guess: Float[Array, "C"]
    axis_name: AxisName | None

    @classmethod
    def of(cls, x: Array, mask: Array | None, guess: Array, axis_name) -> "Batch":
        """A batch of `x`, whose statistics are kept in float32 at least."""
        dtype = statistics_dtype(x.dtype)
        values = Values.of(clean_padding(x, mask), dtype)
        return cls(values, mask, guess.astype(dtype), axis_name)

    @property
    def x(self) -> Inexact[Array, "*batch C"]:
        """The examples, float32 at least."""
        return self.values.wide

    def measure(self, epsilon: float | Float[Array, ""] = 0.0) -> Measured:
        """The moments of the whole batch, over mask and devices.

        In units in which the powers of variance plus `epsilon` are in range.
        """
        measured = measure(self.values, self.mask, self.guess, epsilon)
        if self.axis_name is not None:
            measured = sync_measured(measured, self.axis_name)
        return checkpoint_name(measured, MEASURED)

    def normalize(
        self, moments: Measured | Moments, affine: Affine, epsilon: Float[Array, ""]
    ) -> Inexact[Array, "*batch C"]:
        r"""$\gamma (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta$ with the given moments."""
        if isinstance(moments, Moments):
            moments = Measured.about(moments)
        return apply_moments(self.values, moments, *affine, epsilon)

    def groups(self, size: int) -> "Batch":
        """The batch in groups of `size` successive examples along a new first axis, on no other
        device. Its values and mask are to be mapped over, for example by `jax.vmap`.
        """

        values, mask = self.values, self.mask
        if mask is not None:
            mask = jnp.broadcast_to(mask, (values.wide.shape[0], *mask.shape[1:]))
            mask = split_first(mask, size)
        values = Values(*(split_first(array, size) for array in values))
        return replace(self, values=values, mask=mask, axis_name=None)


@runtime_checkable
class Variant(Protocol):
    """One algorithm of batch normalization: a frozen, hashable, printable value.

    It normalises a checked batch, and returns the moments that the running statistics move
    towards. The running average, both Flax layers and every tool are written against this call
    alone. A variant may read the running statistics, it never updates them.
    """

    def __call__(
        self, batch: Batch, affine: Affine, stats: RunningStats, *, epsilon: Float[Array, ""]
    ) -> tuple[Inexact[Array, "*batch C"], Moments]:
        """Returns `y`, shaped as `batch.x` and float32 at least, and the whole batch's moments.

        `batch.measure()` and `batch.normalize(...)` take mask and devices into account.
        """
        ...

    def __hash__(self) -> int: ...
