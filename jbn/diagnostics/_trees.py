"""A tree of arrays (parameters, a gradient) taken as one vector, whatever its size or scale."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jbn._numerics.arrays import check_float, statistics_dtype
from jbn._types import PyTree

LossFn = Callable[[PyTree], Float[Array, ""]]


def common_dtype(tree: PyTree) -> jnp.dtype:
    """What sums over the whole tree are kept in: float32, or float64 if a leaf is."""
    dtypes = [statistics_dtype(leaf.dtype) for leaf in checked_leaves(tree)]
    return max(dtypes, key=lambda dtype: jnp.finfo(dtype).bits)


def checked_leaves(tree: PyTree) -> list[Array]:
    leaves = jax.tree.leaves(tree)
    if not leaves:
        raise ValueError(f"The tree must hold at least one array, got {tree!r}.")
    return [check_float(leaf, "every leaf of the tree") for leaf in leaves]


def paths(tree: PyTree) -> list[tuple[str, ...]]:
    """The path of each leaf, one string a level: ("hidden_1", "kernel")."""
    return [
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]


def layers(tree: PyTree, depth: int | None) -> dict[str, list[int]]:
    """The numbers of the leaves of each layer, which the first `depth` levels of a path name."""
    checked_leaves(tree)
    groups: dict[str, list[int]] = {}
    for leaf, path in enumerate(paths(tree)):
        groups.setdefault("/".join(path[:depth]), []).append(leaf)
    return groups


def inner(a: PyTree, b: PyTree) -> Float[Array, ""]:
    dtype = common_dtype(a)
    # Not vdot, which a GPU may take in TensorFloat-32.
    products = jax.tree.map(lambda x, y: jnp.sum(x.astype(dtype) * y.astype(dtype)), a, b)
    return sum(jax.tree.leaves(products), jnp.zeros((), dtype))


def minus(a: PyTree, b: PyTree) -> PyTree:
    dtype = common_dtype(a)
    return jax.tree.map(lambda x, y: x.astype(dtype) - y.astype(dtype), a, b)


def norm(tree: PyTree) -> Float[Array, ""]:
    scaled, scale = rescale(tree)
    return scale * jnp.sqrt(inner(scaled, scaled))


def unit(tree: PyTree) -> PyTree:
    """The tree divided by its norm; NaN if that is zero, since it has no direction."""
    scaled, _ = rescale(tree)
    length = jnp.sqrt(inner(scaled, scaled))
    return jax.tree.map(lambda x: x / length, scaled)


def rescale(tree: PyTree) -> tuple[PyTree, Float[Array, ""]]:
    """The tree divided by about its largest element, and that number.

    Deep networks have gradients of 1e-25 and 1e25, whose squares float32 cannot hold.
    """
    dtype = common_dtype(tree)
    largest = [jnp.max(jnp.abs(x), initial=0).astype(dtype) for x in jax.tree.leaves(tree)]
    largest = lax.stop_gradient(jnp.max(jnp.stack(largest)))
    # A power of two, so that nothing is rounded; zero and infinity are left as they are.
    _, exponent = jnp.frexp(largest)
    usable = (largest > 0) & jnp.isfinite(largest)
    limit = jnp.finfo(dtype).maxexp - 2  # beyond it the inverse of the power is no normal number
    exponent = jnp.where(usable, jnp.clip(exponent - 1, -limit, limit), 0)
    one = jnp.ones((), dtype)
    factor = jnp.ldexp(one, -exponent)
    return jax.tree.map(lambda x: x.astype(dtype) * factor, tree), jnp.ldexp(one, exponent)


def advance(tree: PyTree, direction: PyTree, length: Float[Array, ""]) -> PyTree:
    """`tree + length * direction`, each leaf in its own type."""
    dtype = common_dtype(tree)

    def move(x, d):
        moved = x.astype(dtype) + length.astype(dtype) * d.astype(dtype)
        return moved.astype(x.dtype)

    return jax.tree.map(move, tree, direction)
