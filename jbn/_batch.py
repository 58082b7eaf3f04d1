"""A checked batch as variants see it, and the protocol of a variant."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Inexact, Int

from jbn._moments import clean_padding, sync_measured, sync_moments
from jbn._normalize import apply_moments
from jbn._numerics.arrays import batch_axes, per_feature, statistics_dtype
from jbn._numerics.devices import AxisGroups, Devices
from jbn._numerics.measure import Measured, Values, measure, sample_size, zero_excluded
from jbn._numerics.sharding import split_first
from jbn._types import Affine, AxisName, Moments, RunningStats

# Names what a rematerialised layer need not measure again.
MEASURED = "batch moments"


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "mask", "guess"],
    meta_fields=["devices"],
)
@dataclass(frozen=True)
class Batch:
    """One batch, or this device's part of it, features last.

    Attributes:
      values: the examples; what the mask excludes is finite.
      mask: True where an example or an element counts, with as many axes as `x`; None: all do.
      guess: the mean as far as it is known beforehand, the running mean for example.
      devices: those that hold the rest of the batch; None: it is here. `mean`, `measure` and
        `sync` take them into account.
    """

    values: Values
    mask: Bool[Array, "*batch #C"] | None
    guess: Float[Array, "C"]
    devices: Devices | None

    @classmethod
    def of(cls, x: Array, mask: Array | None, guess: Array, devices: Devices | None) -> "Batch":
        """Makes a batch of `x`, whose statistics are kept in float32 at least."""
        dtype = statistics_dtype(x.dtype)
        values = Values.of(clean_padding(x, mask), dtype)
        return cls(values, mask, guess.astype(dtype), devices)

    @property
    def x(self) -> Inexact[Array, "*batch C"]:
        """The examples, float32 at least."""
        return self.values.wide

    @property
    def axis_name(self) -> AxisName | None:
        """The name of `shard_map`, `vmap` or `pmap` that the batch is spread over."""
        devices = self.devices
        return devices.axis_name if isinstance(devices, AxisGroups) else devices

    @property
    def axis_index_groups(self) -> tuple[tuple[int, ...], ...] | None:
        """Groups of indices along `axis_name` that share a batch; None: all do."""
        return self.devices.groups if isinstance(self.devices, AxisGroups) else None

    def measure(self, epsilon: float | Float[Array, ""] = 0.0) -> Measured:
        """Measures the moments of the whole batch, over mask and devices.

        They come in units in which the powers of variance plus `epsilon` are in range.
        """
        measured = measure(self.values, self.mask, self.guess, epsilon)
        if self.devices is not None:
            measured = sync_measured(measured, self.devices)
        return checkpoint_name(measured, MEASURED)

    def centre(self, moments: Moments) -> Float[Array, "*batch C"]:
        """Subtracts the mean from `x`, right to rounding also where the mean is large."""
        mean, rest = (per_feature(v, self.x) for v in (moments.mean, moments.remainder))
        return (self.x - mean) - rest

    def mean(self, of: Float[Array, "*batch C"]) -> Float[Array, "C"]:
        """Averages numbers shaped as `x` over what counts in the whole batch.

        Over mask and devices; zero where nothing counts. A statistic of one's own begins here.
        """
        size = sample_size(of, self.mask, of.dtype)
        mean = jnp.sum(zero_excluded(self.mask, of), axis=batch_axes(of)) / jnp.maximum(size, 1)
        return self.sync(Moments(mean, jnp.zeros_like(mean), size)).mean

    def sync(self, moments: Moments) -> Moments:
        """Pools the moments of this device's part of the batch with those of the others."""
        if self.axis_name is None:
            return moments
        groups = self.axis_index_groups
        return sync_moments(moments, self.axis_name, axis_index_groups=groups)

    def normalize(
        self, moments: Measured | Moments, affine: Affine, epsilon: Float[Array, ""]
    ) -> Inexact[Array, "*batch C"]:
        r"""Returns $\gamma (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta$ with given moments."""
        if isinstance(moments, Moments):
            moments = Measured.about(moments)
        return apply_moments(self.values, moments, *affine, epsilon)

    def groups(self, size: int) -> "Batch":
        """Splits the batch into groups of `size` successive examples along a new first axis.

        Map over its values and mask, for example by `jax.vmap`. A group lies on one device.
        """
        values, mask = self.values, self.mask
        if mask is not None:
            mask = jnp.broadcast_to(mask, (values.wide.shape[0], *mask.shape[1:]))
            mask = split_first(mask, size)
        values = Values(*(split_first(array, size) for array in values))
        return replace(self, values=values, mask=mask, devices=None)


@runtime_checkable
class Variant(Protocol):
    """One algorithm of batch normalization: a frozen, hashable, printable value.

    It normalises a checked batch, and returns the moments that the running statistics move
    towards. The running average, both Flax layers and every tool are written against these two
    methods alone. A variant may read the running statistics, it never updates them.
    """

    def __call__(
        self, batch: Batch, affine: Affine, stats: RunningStats, *, epsilon: Float[Array, ""]
    ) -> tuple[Inexact[Array, "*batch C"], Moments]:
        """Returns `y`, shaped as `batch.x` and float32 at least, and the whole batch's moments.

        `batch.measure()` and `batch.normalize(...)` take mask and devices into account. The moments
        are those with which inference does what training did, `normalize(x, mean, var, ...)`; those
        of parts are pooled by the law of total variance (`pool_moments`).
        """
        ...

    def population(self) -> "Variant":
        """Returns the variant that normalises a batch by itself as inference will by all the data.

        `recalibrate` trains no more: it runs a model with it, and pools its moments. A variant
        without groups, noise, old statistics and cut gradients returns itself.
        """
        ...

    def __hash__(self) -> int: ...


@runtime_checkable
class Schedule(Protocol):
    """A variant for each training step: the `variant` of a layer, which counts the steps.

    A frozen, hashable, printable value, `RenormSchedule()` for example. `batch_norm` has no count:
    give it `schedule.at(step)`.
    """

    def at(self, step: Int[Array, ""]) -> Variant:
        """Returns the variant of a step: 0 at first, and traced in a compiled program."""
        ...

    def population(self) -> Variant:
        """Returns the variant that normalises as inference will, as `Variant.population`."""
        ...

    def __hash__(self) -> int: ...


def population_of(variant: Variant | Schedule) -> Variant:
    """Returns `variant.population()`; refuses a variant that has none."""
    if not hasattr(variant, "population"):
        raise TypeError(
            f"{variant!r} does not say how inference normalises. Give {type(variant).__name__} a "
            "method population(self) that returns a variant: self, if inference does with the "
            "statistics of all data what the variant does with those of a batch; else another, "
            "jbn.Standard() for example."
        )
    return variant.population()
