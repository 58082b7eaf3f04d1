"""Smoothness of the loss along the gradient: loss variation, predictiveness, beta-smoothness."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jbn._types import PyTree
from jbn.diagnostics import _trees
from jbn.diagnostics._trees import LossFn


class AlongGradient(NamedTuple):
    """The loss and its gradients along a gradient, at each of S step sizes and over all of them.

    Attributes:
      loss: after a step of each size.
      gradient_distance: between the gradient there and that at the start.
      loss_variation: the largest `loss` less the smallest.
      gradient_predictiveness: the largest `gradient_distance`.
      beta_smoothness: the largest `gradient_distance` per distance moved.
      gradient_norm: at the start, for comparisons relative to it.
    """

    loss: Float[Array, "S"]
    gradient_distance: Float[Array, "S"]
    loss_variation: Float[Array, ""]
    gradient_predictiveness: Float[Array, ""]
    beta_smoothness: Float[Array, ""]
    gradient_norm: Float[Array, ""]


def along_gradient(loss_fn: LossFn, params: PyTree, step_sizes: Float[Array, "S"]) -> AlongGradient:
    r"""Measures loss variation, gradient predictiveness and beta-smoothness along the gradient.

    With $g = \nabla L(\theta)$ and step sizes $a$,

    $$\max_a L(\theta - a g) - \min_a L(\theta - a g), \qquad
      \max_a \|\nabla L(\theta - a g) - g\|, \qquad
      \max_a \frac{\|\nabla L(\theta - a g) - g\|}{a \|g\|}$$

    The range of $a$ decides what they say; report it. Distances are in the space of weights: where
    their scale does not matter, as before batch norm, compare `gradient_predictiveness` over
    `gradient_norm` too.

    Args:
      loss_fn: from parameters to a scalar, with the batch inside it.
      params: any tree of arrays.
      step_sizes: $a$, such as learning rates; may be traced. A step of zero adds the loss at the
        start, and nothing to `beta_smoothness`.

    Raises:
      ValueError: if `step_sizes` is not a vector of at least one.

    Santurkar et al. 2018 (arXiv:1805.11604), section 3.1 and figure 4.

    >>> import jax.numpy as jnp
    >>> loss_fn = lambda w: jnp.sum(jnp.array([1.0, 4.0]) * w**2) / 2
    >>> along = along_gradient(loss_fn, jnp.array([0.0, 1.0]), jnp.array([0.25, 0.5]))
    >>> print(along.loss, along.gradient_predictiveness, along.beta_smoothness)
    [0. 2.] 8.0 4.0
    """
    dtype = _trees.common_dtype(params)
    step_sizes = jnp.asarray(step_sizes, dtype)
    if step_sizes.ndim != 1 or not step_sizes.size:
        raise ValueError(
            f"step_sizes must be a vector of at least one, got shape {step_sizes.shape}."
        )
    value_and_gradient = jax.value_and_grad(loss_fn)
    gradient = jax.grad(loss_fn)(params)
    length = _trees.norm(gradient)

    def probe(step_size):
        loss, moved = value_and_gradient(_trees.advance(params, gradient, -step_size))
        return loss, _trees.norm(_trees.minus(moved, gradient))

    # One step after the other, so that memory is that of one gradient.
    loss, distance = lax.map(probe, step_sizes)
    travelled = jnp.abs(step_sizes) * length
    slope = jnp.where(step_sizes == 0, 0, distance / jnp.where(step_sizes == 0, 1, travelled))
    variation = jnp.max(loss) - jnp.min(loss)
    return AlongGradient(loss, distance, variation, jnp.max(distance), jnp.max(slope), length)
