"""Dependence of a network's outputs on the rest of their batch, which batch norm brings about."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jbn._numerics.arrays import check_float
from jbn._types import PyTree
from jbn.diagnostics import _trees


def batch_dependence(
    fn: Callable[[PyTree], Float[Array, "B ..."]],
    examples: PyTree,
    key: Array,
    *,
    batch_size: int,
    redraws: int = 8,
) -> Float[Array, ""]:
    r"""Measures how far the other members of its batch decide an example's output.

    $$\frac{W}{W + V}, \qquad W = \mathbb{E}_i \operatorname{Var}_{b}\, y_i(b), \quad
      V = \operatorname{Var}_i\, \mathbb{E}_b\, y_i(b)$$

    with $y_i(b)$ the output for example i in a batch b that is otherwise drawn anew, and variances
    summed over an output's elements. The share of the outputs' variance over examples and batches
    that the batch explains: 0 for layer norm, and for batch norm at inference; 1 if outputs said
    nothing of their example. Estimated without bias in W and V from `redraws` passes over all
    examples, each in a new order; 0 where the output never varies.

    Args:
      fn: from a batch (B, ...) to outputs (B, ...), in training mode and the same at each call:
        `lambda x: model.apply(variables, x, mutable=["batch_stats"])[0]`.
      examples: the N examples to draw batches of, an array (N, ...) or a tree of them.
      key: of the orders.
      batch_size: B. It divides N, which is at least 2 B.
      redraws: batches that each example is seen in, two at least.

    Raises:
      ValueError: if `batch_size`, `redraws` or what `fn` returns does not fit.

    >>> import jax, jax.numpy as jnp
    >>> x = jax.random.normal(jax.random.key(0), (64, 3))
    >>> centre = lambda x: x - jnp.mean(x, axis=0, keepdims=True)
    >>> share = batch_dependence(centre, x, jax.random.key(1), batch_size=8)
    >>> print(0.05 < share < 0.2, batch_dependence(jnp.tanh, x, jax.random.key(1), batch_size=8))
    True 0.0
    """
    sizes = {leaf.shape[:1] for leaf in _trees.checked_leaves(examples)}
    (count,) = sizes.pop() or (0,)
    if sizes or batch_size < 1 or count % batch_size or count < 2 * batch_size:
        raise ValueError(
            f"batch_size={batch_size} must divide the number of examples, the first axis of every "
            f"array, and be at most half of it, got {count}."
        )
    if redraws < 2:
        raise ValueError(f"redraws must be at least 2, for a variance, got {redraws}.")

    def redraw(key):
        order = jax.random.permutation(key, count)
        batches = jax.tree.map(lambda x: x[order].reshape(-1, batch_size, *x.shape[1:]), examples)
        y = check_float(lax.map(fn, batches), "the output of fn")
        if y.shape[1:2] != (batch_size,):
            raise ValueError(f"fn must return {batch_size} outputs for as many, got {y.shape[1:]}.")
        y = y.reshape(count, -1)
        return jnp.zeros_like(y).at[order].set(y)

    y, _ = _trees.rescale(lax.map(redraw, jax.random.split(key, redraws)))
    # About the first redraw, so that outputs which agree have a variance of exactly zero.
    within = jnp.sum(jnp.mean(jnp.var(y - y[:1], axis=0, ddof=1), axis=0))
    means = jnp.sum(jnp.var(jnp.mean(y, axis=0), axis=0, ddof=1))
    total = within + jnp.maximum(means - within / redraws, 0)
    return within / jnp.where(total == 0, 1, total)
