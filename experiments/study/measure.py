"""Measures of a network while it trains: pure functions of gradients, updates and inputs.

A gradient or an update is a tree, as Flax keeps parameters; layers that have a kernel are measured
one by one, and `kernels` are theirs, in order.

`cosine`, `gradient_noise` and `typical_percentiles` are `gradient_cosine`, `relative_noise` and
`activation_percentiles` of `jbn.diagnostics` without their rescaling and with an integer sort.
Those take two to four times the CPU time (12 runs of 784-100-100) and end in other last bits, so
that a study's numbers would change.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PERCENTILES = (15, 50, 85)

# Narrowest at zero, where a sigmoid bends, and far-reaching, for runs that are hardly stable.
BINS, FARTHEST = 32, 20.0
_REACH = float(np.arcsinh(FARTHEST))
BIN_EDGES = np.sinh(np.linspace(-_REACH, _REACH, BINS + 1))

# Of a convolution's outputs as many positions, evenly spread over examples and images, say enough.
MOST_ROWS = 4000

Params = Mapping[str, Any]


def kernel_norms(kernels: Sequence[jax.Array]) -> jax.Array:
    """Returns the L2 norm of each layer's kernel, or of its gradient or update: `(layers,)`."""
    return jnp.stack([jnp.sqrt(jnp.sum(jnp.square(kernel))) for kernel in kernels])


def cosine(a: Params, b: Params) -> jax.Array:
    """Returns the cosine of the angle between two gradients as vectors: a.b / (|a| |b|)."""
    return _dot(a, b) / jnp.sqrt(_dot(a, a) * _dot(b, b))


def gradient_noise(kernels: Sequence[jax.Array]) -> jax.Array:
    """Measures the batch's share: sqrt(mean_b |g_b - g|^2) / |g| of each kernel, g = mean_b g_b.

    Each gradient has a leading axis over B batches, taken at the same weights. Gradients that are
    all noise give about sqrt(B - 1), the most that B batches can show.
    """

    def noise(g: jax.Array) -> jax.Array:
        mean = jnp.mean(g, axis=0, keepdims=True)
        spread = jnp.sum(jnp.square(g - mean)) / g.shape[0]
        return jnp.sqrt(spread / jnp.sum(jnp.square(mean)))

    return jnp.stack([noise(gradient) for gradient in kernels])


def typical_percentiles(inputs: jax.Array) -> jax.Array:
    """Returns the PERCENTILES of each unit over the examples, then the median over units.

    `inputs` is `(examples, units)`; Ioffe & Szegedy (2015), figure 1b and c, show one such unit.
    """
    rank = np.array(PERCENTILES) / 100 * (inputs.shape[0] - 1)
    low, high = np.floor(rank).astype(int), np.ceil(rank).astype(int)
    weight = jnp.array(rank - low, inputs.dtype)[:, None]
    in_order = _sorted(inputs)
    each = (1 - weight) * in_order[low] + weight * in_order[high]
    return jnp.median(each, axis=1)


def units_last(x: jax.Array) -> jax.Array:
    """Reshapes `x` to `(examples, units)`: positions of images too, of MOST_ROWS at most."""
    rows = x.reshape(-1, x.shape[-1])
    if rows.shape[0] <= MOST_ROWS:
        return rows
    return rows[np.linspace(0, rows.shape[0] - 1, MOST_ROWS).round().astype(np.int32)]


def histogram(inputs: jax.Array) -> jax.Array:
    """Returns the fraction of all `inputs` in each bin: `(BINS,)`, the units taken together.

    Edges are BIN_EDGES, evenly spaced in arcsinh; what lies beyond counts with the outermost bin.
    """
    position = (jnp.arcsinh(inputs) + _REACH) * (BINS / (2 * _REACH))
    bins = jnp.clip(jnp.floor(position), 0, BINS - 1).astype(jnp.int32)
    return jnp.zeros(BINS, jnp.int32).at[jnp.ravel(bins)].add(1) / inputs.size


def _sorted(x: jax.Array) -> jax.Array:
    """Returns `jnp.sort(x, axis=0)` of float32 without NaN.

    Floats are in the order of their bits, those of negative ones flipped; as whole numbers XLA
    sorts them four times faster on a CPU, where the sort would cost more than all other measures.
    """

    def flip(bits: jax.Array) -> jax.Array:
        return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)

    bits = flip(jax.lax.bitcast_convert_type(x, jnp.int32))
    return jax.lax.bitcast_convert_type(flip(jnp.sort(bits, axis=0)), jnp.float32)


def _dot(a: Params, b: Params) -> jax.Array:
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda x, y: jnp.sum(x * y), a, b))
