"""Vector arithmetic on trees of arrays: inner products, norms and directions at any scale."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jbn._numerics.arrays import check_float, statistics_dtype
from jbn._numerics.frame import clip_to_normal, power_of_two
from jbn._types import PyTree

LossFn = Callable[[PyTree], Float[Array, ""]]


def common_dtype(tree: PyTree) -> jnp.dtype:
    """Returns the type of sums over the whole tree: float32, or float64 if a leaf is."""
    dtypes = [statistics_dtype(leaf.dtype) for leaf in checked_leaves(tree)]
    return max(dtypes, key=lambda dtype: jnp.finfo(dtype).bits)


def checked_leaves(tree: PyTree) -> list[Array]:
    leaves = jax.tree.leaves(tree)
    if not leaves:
        raise ValueError(f"The tree must hold at least one array, got {tree!r}.")
    return [check_float(leaf, "every leaf of the tree") for leaf in leaves]


def paths(tree: PyTree) -> list[tuple[str, ...]]:
    """Returns the path of each leaf, one string a level: ("hidden_1", "kernel")."""
    return [
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]


def layers(tree: PyTree, depth: int | None) -> dict[str, list[int]]:
    """Returns the numbers of each layer's leaves: `depth` levels of a path name a layer."""
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
    """Divides the tree by its norm; NaN if that is zero, since it has no direction."""
    scaled, _ = rescale(tree)
    length = jnp.sqrt(inner(scaled, scaled))
    return jax.tree.map(lambda x: x / length, scaled)


def rescale(tree: PyTree) -> tuple[PyTree, Float[Array, ""]]:
    """Divides the tree by about its largest element; returns that number too.

    Deep networks have gradients of 1e-25 and 1e25, whose squares float32 cannot hold.
    """
    dtype = common_dtype(tree)
    largest = [jnp.max(jnp.abs(x), initial=0).astype(dtype) for x in jax.tree.leaves(tree)]
    largest = lax.stop_gradient(jnp.max(jnp.stack(largest)))
    # A power of two, so that nothing is rounded; zero and infinity are left as they are.
    usable = (largest > 0) & jnp.isfinite(largest)
    scale = clip_to_normal(power_of_two(jnp.where(usable, largest, 1)))
    return jax.tree.map(lambda x: x.astype(dtype) * (1 / scale), tree), scale


def advance(tree: PyTree, direction: PyTree, length: Float[Array, ""]) -> PyTree:
    """Returns `tree + length * direction`, each leaf in its own type."""
    dtype = common_dtype(tree)

    def move(x, d):
        moved = x.astype(dtype) + length.astype(dtype) * d.astype(dtype)
        return moved.astype(x.dtype)

    return jax.tree.map(move, tree, direction)
