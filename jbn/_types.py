"""The records that everything else passes around, and what a variant of batch norm must be.

`Moments` describe one batch, `RunningStats` what inference reads, `Affine` what is learned.
"""

from collections.abc import Hashable
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Inexact

from jbn._pytrees import register_record

AxisName = Hashable | tuple[Hashable, ...]


@register_record
class Moments(NamedTuple):
    """Mean, biased variance and sample size of the examples of one batch, per feature.

    `size` counts the examples behind each mean, after masks and over all devices, so that the
    moments of parts can be pooled into the moments of the whole (`pool_moments`). `var` is
    divided by `size`, not `size - 1`; see `bessel_correction`.
    """

    mean: Inexact[Array, "*stack C"]
    var: Float[Array, "*stack C"]
    size: Float[Array, "*stack C"]


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


@runtime_checkable
class Variant(Protocol):
    """One algorithm of batch normalization: a frozen, hashable, printable value.

    It normalises a checked batch, features last and float32 at least, and says what it saw. The
    running average, both Flax layers and every tool are written against this call alone. A variant
    may read the running statistics, it never updates them.
    """

    def __call__(
        self,
        x: Inexact[Array, "*batch C"],
        affine: Affine,
        stats: RunningStats,
        *,
        epsilon: Float[Array, ""],
        mask: Bool[Array, "*batch #C"] | None,
        axis_name: AxisName | None,
    ) -> tuple[Inexact[Array, "*batch C"], Moments]:
        """Returns `y`, of the type of `x`, and the moments of the whole batch.

        `axis_name` says which devices hold the rest of it, for `sync_moments` as it comes.
        """
        ...

    def __hash__(self) -> int: ...
