"""Batch normalization for Flax Linen: change `flax.linen.BatchNorm` to `jbn.linen.BatchNorm`."""

from jbn.linen._batch_norm import BatchNorm, BatchStatsImmutableError
from jbn.linen._drop import drop_norms
from jbn.linen._fold import fold
from jbn.linen._recalibrate import recalibrate
from jbn.linen._replace import replace_norms

__all__ = [
    "BatchNorm",
    "BatchStatsImmutableError",
    "drop_norms",
    "fold",
    "recalibrate",
    "replace_norms",
]
