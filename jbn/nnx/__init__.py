"""Batch normalization for Flax NNX: change `flax.nnx.BatchNorm` to `jbn.nnx.BatchNorm`."""

from jbn.nnx._batch_norm import BatchNorm
from jbn.nnx._drop import drop_norms
from jbn.nnx._fold import fold
from jbn.nnx._recalibrate import recalibrate
from jbn.nnx._replace import replace_norms

__all__ = ["BatchNorm", "drop_norms", "fold", "recalibrate", "replace_norms"]
