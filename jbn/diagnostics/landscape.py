"""Curvature of the loss: along one step's gradient, and its largest and smallest eigenvalues."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jbn._types import PyTree
from jbn.diagnostics import _trees
from jbn.diagnostics._lanczos import lanczos

LossFn = Callable[[PyTree], Float[Array, ""]]


class AlongGradient(NamedTuple):
    """What `along_gradient` meets, at each of S step sizes and over all of them.

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


class Eigenpairs(NamedTuple):
    r"""Eigenvalues of a Hessian, the largest first.

    Attributes:
      values: $\lambda$, signed, in descending order.
      residuals: $\|H v - \lambda v\|$. An eigenvalue of $H$ lies within it of each value.
      vectors: the unit vectors $v$, as a tree like the parameters with a leading axis over them.
    """

    values: Float[Array, "K"]
    residuals: Float[Array, "K"]
    vectors: PyTree


def along_gradient(loss_fn: LossFn, params: PyTree, step_sizes: Float[Array, "S"]) -> AlongGradient:
    r"""Loss variation, gradient predictiveness and effective beta-smoothness along the gradient.

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
    >>> seen = along_gradient(loss_fn, jnp.array([0.0, 1.0]), jnp.array([0.25, 0.5]))
    >>> print(seen.loss, seen.gradient_predictiveness, seen.beta_smoothness)
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


def hessian_vector_product(loss_fn: LossFn, params: PyTree, vector: PyTree) -> PyTree:
    r"""The Hessian of the loss times a vector, at about the cost of two gradients.

    $$H v = \left. \frac{d}{dr} \nabla L(\theta + r v) \right|_{r = 0}$$

    Args:
      loss_fn: from parameters to a scalar, with the batch inside it.
      params: any tree of arrays.
      vector: a tree of the same structure, shapes and types.

    Pearlmutter 1994, "Fast exact multiplication by the Hessian", section 2.

    >>> import jax.numpy as jnp
    >>> loss_fn = lambda w: w[0] ** 2 * w[1]
    >>> print(hessian_vector_product(loss_fn, jnp.ones(2), jnp.array([1.0, 0.0])))
    [2. 2.]
    """
    return jax.jvp(jax.grad(loss_fn), (params,), (vector,))[1]


def hessian_eigenvalues(
    loss_fn: LossFn,
    params: PyTree,
    key: Array,
    *,
    k: int = 1,
    which: Literal["largest", "smallest", "both"] = "largest",
    iterations: int = 40,
) -> Eigenpairs:
    r"""The extreme eigenvalues of the Hessian of the loss, with their sign and their error.

    $$H v = \lambda v, \qquad H = \nabla^2 L(\theta)$$

    Lanczos' method on Hessian-vector products, each new direction orthogonal to all before it.
    The largest in magnitude, which power iteration finds, may be negative: ask for "both". Where
    the scale of weights does not matter, as before batch norm, $\lambda \|w\|^2$ is what compares.

    Args:
      loss_fn: from parameters to a scalar, with the batch inside it.
      params: any tree of arrays, n numbers in all. The method keeps `iterations` vectors of n.
      key: of the random first direction. Another key should find the same values.
      k: how many eigenvalues, from each end with "both".
      which: "largest" and "smallest" go by signed value.
      iterations: Hessian-vector products to spend (n at most); k or 2 k more give the residuals.
        Take more where the residuals are too large.

    Returns:
      `Eigenpairs` in descending order: of "both", first the k largest, then the k smallest.

    Raises:
      ValueError: if `which` is another word, or k is less than 1 or too large for `iterations`
        and n.

    Lanczos 1950; Golub & Van Loan, "Matrix Computations", section 10.1 to 10.3.

    >>> import jax, jax.numpy as jnp
    >>> loss_fn = lambda w: jnp.sum(jnp.array([5.0, 1.0, 0.5, -2.0]) * w**2) / 2
    >>> found = hessian_eigenvalues(loss_fn, jnp.ones(4), jax.random.key(0), which="both")
    >>> print(found.values.round(3), bool(found.residuals.max() < 1e-4))
    [ 5. -2.] True
    """
    flat, unravel = _ravel(params)
    iterations = min(iterations, flat.size)
    ends = {"largest": (k, 0), "smallest": (0, k), "both": (k, k)}
    if which not in ends:
        raise ValueError(f"which must be one of {', '.join(ends)}, got {which!r}.")
    if k < 1 or sum(ends[which]) > iterations:
        raise ValueError(
            f"k={k} with which={which!r} asks for {sum(ends[which])} eigenvalues of "
            f"min(iterations, parameters) = {iterations}. It must ask for 1 to that many."
        )

    def multiply(vector):
        return hessian_vector_product(lambda w: loss_fn(unravel(w)), flat, vector)

    values, vectors = lanczos(multiply, jax.random.normal(key, flat.shape, flat.dtype), iterations)
    top, bottom = ends[which]
    chosen = jnp.array([*range(top), *range(iterations - bottom, iterations)])
    values, vectors = values[chosen], vectors[chosen]
    errors = lax.map(lambda pair: multiply(pair[1]) - pair[0] * pair[1], (values, vectors))
    return Eigenpairs(values, jax.vmap(_trees.norm)(errors), jax.vmap(unravel)(vectors))


def _ravel(params: PyTree) -> tuple[Array, Callable[[Array], PyTree]]:
    """The parameters as one vector of one type, and the way back to each array's own."""
    dtype = _trees.common_dtype(params)
    flat, unravel = ravel_pytree(jax.tree.map(lambda x: x.astype(dtype), params))

    def restore(vector: Array) -> PyTree:
        return jax.tree.map(lambda v, x: v.astype(x.dtype), unravel(vector), params)

    return flat, restore
