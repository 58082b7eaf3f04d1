"""Lanczos' method: the ends of a symmetric operator's spectrum from its products with vectors."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def lanczos(
    multiply: Callable[[Array], Array], start: Float[Array, "n"], iterations: int
) -> tuple[Float[Array, "m"], Float[Array, "m n"]]:
    """Returns Ritz values in descending order and their unit vectors, from `iterations` products.

    Each direction is made orthogonal to all before it, twice: the short recurrence alone loses
    that within a few steps and then finds large eigenvalues again and again. Once the directions
    span all that `start` can reach, the next is another one, so that values which occur twice, or
    which `start` is orthogonal to, are found too.
    """
    size, dtype = start.size, start.dtype
    tiny = 10 * jnp.finfo(dtype).eps

    def orthogonal(vector: Array, basis: Array) -> Array:
        for _ in range(2):
            # HIGHEST, or a GPU would take these products in TensorFloat-32.
            along = jnp.matmul(basis, vector, precision=lax.Precision.HIGHEST)
            vector = vector - jnp.matmul(along, basis, precision=lax.Precision.HIGHEST)
        return vector

    def extend(carry, step):
        basis, scale = carry
        direction = basis[step]
        product = multiply(direction)
        diagonal = jnp.sum(direction * product)
        rest = orthogonal(product, basis)
        off_diagonal = _length(rest)
        scale = jnp.maximum(scale, jnp.abs(diagonal) + off_diagonal)
        exhausted = off_diagonal <= tiny * scale
        # Any direction outside the basis: start, turned about, shares no symmetry with it.
        fresh = jnp.roll(start, step + 1)
        following = jnp.where(exhausted, fresh / _length(fresh), rest)
        # Of length one before it is made orthogonal once more, and again after.
        following = orthogonal(following / _length(following), basis)
        following = following / _length(following)
        basis = basis.at[step + 1].set(following, mode="drop")
        return (basis, scale), (diagonal, jnp.where(exhausted, 0, off_diagonal))

    basis = jnp.zeros((iterations, size), dtype).at[0].set(start / _length(start))
    steps = jnp.arange(iterations)
    (basis, _), (diagonal, off_diagonal) = lax.scan(extend, (basis, jnp.zeros((), dtype)), steps)
    tridiagonal = jnp.diag(diagonal) + jnp.diag(off_diagonal[:-1], 1)
    tridiagonal = tridiagonal + jnp.diag(off_diagonal[:-1], -1)
    values, mixtures = jnp.linalg.eigh(tridiagonal)
    vectors = jnp.matmul(mixtures.T, basis, precision=lax.Precision.HIGHEST)
    return values[::-1], vectors[::-1]


def _length(vector: Array) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(vector)))
