"""Batch normalization in JAX, in small pure functions.

`jbn.linen` and `jbn.nnx` hold the Flax layers, `jbn.convert` and `jbn.diagnostics` tools. They are
imported where they are first named, so that `import jbn` needs only JAX.
"""

import importlib
from types import ModuleType as _ModuleType

# The protocols of a variant and a schedule of them, and the argument that a variant is called with.
from jbn._batch import Batch, Schedule, Variant

# The algorithm, assembled.
from jbn._batch_norm import batch_norm, init

# A trained layer merged into the Dense or Conv before or after it.
from jbn._fold import as_affine, fold, fold_forward

# The parts of the algorithm: describe a batch, pool descriptions, normalise.
from jbn._moments import batch_moments, bessel_correction, pool_moments, sync_moments
from jbn._normalize import normalize

# What inference reads: the population, or a running average of the batches.
from jbn._recalibrate import Drift, recalibrate
from jbn._running import debiased_momentum, update_running, warmup_momentum

# The records they pass around.
from jbn._types import Affine, Moments, RunningStats

# Variants: the choice of algorithm as a value.
from jbn._variants import (
    Detached,
    Ghost,
    Noisy,
    Renorm,
    RenormSchedule,
    Running,
    Standard,
    Uncentered,
)

__version__ = "0.2.0.dev0"

__all__ = [
    "Affine",
    "Batch",
    "Detached",
    "Drift",
    "Ghost",
    "Moments",
    "Noisy",
    "Renorm",
    "RenormSchedule",
    "Running",
    "RunningStats",
    "Schedule",
    "Standard",
    "Uncentered",
    "Variant",
    "as_affine",
    "batch_moments",
    "batch_norm",
    "bessel_correction",
    "debiased_momentum",
    "fold",
    "fold_forward",
    "init",
    "normalize",
    "pool_moments",
    "recalibrate",
    "sync_moments",
    "update_running",
    "warmup_momentum",
]

_LATER = ("convert", "diagnostics", "linen", "nnx")


def __getattr__(name: str) -> _ModuleType:
    """Imports `jbn.convert`, say, where it is first named."""
    if name in _LATER:
        return importlib.import_module(f"jbn.{name}")
    raise AttributeError(f"module 'jbn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
