"""Sums over the batch, and maps whose transpose is such a sum, in one pass through memory.

On a CPU XLA gives every column sum a pass of its own and materialises any operand that two of
them share. A scan over blocks of rows reads each row once for all the sums, and its two levels
of accumulators round less. On accelerators XLA fuses the plain form by itself.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jbn._numerics.arrays import batch_axes, per_feature
from jbn._numerics.sharding import may_be_sharded

# Measured on two-core x86 machines: below, the loop over blocks costs more than it saves; the
# accumulators of a block of BLOCK elements stay in the first-level cache.
SMALL = 2**15
BLOCK = 2**12


def block_rows(x: Array) -> int | None:
    """Returns the rows of a block; None where blocks cost more, or the batch's size is symbolic.

    Nor where the batch may be sharded: each device would gather all of it for the scan.
    """
    rows, features = math.prod(x.shape[:-1]), x.shape[-1]
    if not isinstance(rows, int) or rows * features < SMALL or may_be_sharded(x):
        return None
    target = max(1, BLOCK // features)
    divisors = (size for size in range(min(2 * target, rows // 4), 0, -1) if rows % size == 0)
    size = next(divisors, 1)
    # Too few rows per step (a prime number of rows, say) and the scan itself is what costs.
    return size if 4 * size >= target else None


def _blocks(array: Array, rows: int) -> Array:
    return array.reshape(-1, rows, array.shape[-1])


def sum_batch(terms: Callable[..., tuple[Array, ...]], *arrays: Array) -> tuple[Array, ...]:
    """Sums each of `terms(*arrays)`, elementwise in the arrays, over all axes but the last.

    The arrays have equal ndim and batch axes; the last axis of a mask may be 1.
    """

    def plain(*arrays):
        return tuple(jnp.sum(term, axis=batch_axes(term)) for term in terms(*arrays))

    rows = block_rows(arrays[0])
    if rows is None:
        return plain(*arrays)

    def blocked(*arrays):
        blocks = [_blocks(array, rows) for array in arrays]

        def zeros():
            # Like terms: inside shard_map they then vary over the same axes, as a carry must.
            return tuple(jnp.zeros_like(term) for term in terms(*(block[0] for block in blocks)))

        def add(index, sums):
            block = (lax.dynamic_index_in_dim(array, index, keepdims=False) for array in blocks)
            return tuple(s + term for s, term in zip(sums, terms(*block)))

        # Blocks are added in groups: a long chain of equal terms is rounded to one side all along.
        count = blocks[0].shape[0]
        groups = next(size for size in range(math.isqrt(count), 0, -1) if count % size == 0)
        each = count // groups

        def add_group(group, sums):
            start = group * each
            parts = lax.fori_loop(0, each, lambda i, sums: add(start + i, sums), zeros())
            return tuple(s + part for s, part in zip(sums, parts))

        sums = lax.fori_loop(0, groups, add_group, zeros())
        return tuple(jnp.sum(s, axis=0) for s in sums)

    return lax.platform_dependent(*arrays, cpu=blocked, default=plain)


def map_batch(
    function: Callable[..., Array], coefficients: tuple[Array, ...], *arrays: Array
) -> Array:
    """Applies `function(coefficients, *arrays)` elementwise, coefficients being one per feature.

    Linear in the coefficients, its transpose is the sum over the batch that `sum_batch` does.
    """

    def plain(coefficients, *arrays):
        return function(tuple(per_feature(c, arrays[0]) for c in coefficients), *arrays)

    rows = block_rows(arrays[0])
    if rows is None:
        return plain(coefficients, *arrays)

    def blocked(coefficients, *arrays):
        wide = tuple(jnp.broadcast_to(c[None], (rows, c.shape[0])) for c in coefficients)

        # Rematerialised, or the forward half of a backward pass would materialise a copy of x.
        @partial(jax.checkpoint, prevent_cse=False)
        def step(_, block):
            return None, function(wide, *block)

        _, out = lax.scan(step, None, [_blocks(array, rows) for array in arrays])
        return out.reshape(arrays[0].shape)

    return lax.platform_dependent(coefficients, *arrays, cpu=blocked, default=plain)
