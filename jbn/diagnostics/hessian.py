"""Curvature of the loss: Hessian-vector products, and the ends of the Hessian's spectrum."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from jbn.diagnostics import _trees
from jbn.diagnostics._lanczos import lanczos

LossFn = Callable[[PyTree], Float[Array, ""]]


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
