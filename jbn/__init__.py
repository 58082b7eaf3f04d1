"""Batch normalization in JAX, in small pure functions.

`jbn.linen` holds the Flax layer; it is not imported here, so that `import jbn` needs only JAX.
"""

# The algorithm, assembled.
from jbn._batch_norm import batch_norm as batch_norm
from jbn._batch_norm import init as init

# Its parts: describe a batch, pool descriptions, normalise, remember.
from jbn._moments import batch_moments as batch_moments
from jbn._moments import bessel_correction as bessel_correction
from jbn._moments import pool_moments as pool_moments
from jbn._moments import sync_moments as sync_moments
from jbn._normalize import normalize as normalize
from jbn._running import update_running as update_running
from jbn._running import warmup_momentum as warmup_momentum

# The records they pass around.
from jbn._types import Affine as Affine
from jbn._types import Moments as Moments
from jbn._types import RunningStats as RunningStats
from jbn._types import Variant as Variant

# Variants: the choice of algorithm as a value.
from jbn._variants import Standard as Standard

__version__ = "0.1.0"
