"""Batch normalization in JAX, in small pure functions.

`jbn.linen` and `jbn.nnx` hold the Flax layers; they are not imported here, so that `import jbn`
needs only JAX.
"""

# The protocols of a variant and a schedule of them, and the argument that a variant is called with.
from jbn._batch import Batch as Batch
from jbn._batch import Schedule as Schedule
from jbn._batch import Variant as Variant

# The algorithm, assembled.
from jbn._batch_norm import batch_norm as batch_norm
from jbn._batch_norm import init as init

# A trained layer merged into the Dense or Conv before or after it.
from jbn._fold import as_affine as as_affine
from jbn._fold import fold as fold
from jbn._fold import fold_forward as fold_forward

# The parts of the algorithm: describe a batch, pool descriptions, normalise.
from jbn._moments import batch_moments as batch_moments
from jbn._moments import bessel_correction as bessel_correction
from jbn._moments import pool_moments as pool_moments
from jbn._moments import sync_moments as sync_moments
from jbn._normalize import normalize as normalize

# What inference reads: the population, or a running average of the batches.
from jbn._recalibrate import Drift as Drift
from jbn._recalibrate import recalibrate as recalibrate
from jbn._running import debiased_momentum as debiased_momentum
from jbn._running import update_running as update_running
from jbn._running import warmup_momentum as warmup_momentum

# The records they pass around.
from jbn._types import Affine as Affine
from jbn._types import Moments as Moments
from jbn._types import RunningStats as RunningStats

# Variants: the choice of algorithm as a value.
from jbn._variants import Detached as Detached
from jbn._variants import Ghost as Ghost
from jbn._variants import Noisy as Noisy
from jbn._variants import Renorm as Renorm
from jbn._variants import RenormSchedule as RenormSchedule
from jbn._variants import Running as Running
from jbn._variants import Standard as Standard
from jbn._variants import Uncentered as Uncentered

__version__ = "0.2.0.dev0"
