"""Curvature of the loss: the Hessian's products, eigenvalues, trace and sharpness, by layer too."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jbn._numerics.values import check_momentum, check_number
from jbn._types import PyTree
from jbn.diagnostics import _trees
from jbn.diagnostics._lanczos import lanczos
from jbn.diagnostics._trees import LossFn


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


class Trace(NamedTuple):
    """The trace of a Hessian.

    Attributes:
      trace: the sum of all eigenvalues.
      standard_error: of `trace`; 0 where it is exact.
    """

    trace: Float[Array, ""]
    standard_error: Float[Array, ""]


class Sharpness(NamedTuple):
    r"""The largest eigenvalue of a Hessian in three units.

    Attributes:
      eigenvalue: $\lambda$, in the unit of the loss per squared unit of weight.
      scale_free: $\lambda \|w\|^2$, the same at any scale of weights whose scale does not matter.
      to_edge: $\lambda$ over what the optimizer is stable below; 1 at the edge of stability.
      residual: an eigenvalue lies within it of `eigenvalue`.
    """

    eigenvalue: Float[Array, ""]
    scale_free: Float[Array, ""]
    to_edge: Float[Array, ""]
    residual: Float[Array, ""]


def hessian_vector_product(loss_fn: LossFn, params: PyTree, vector: PyTree) -> PyTree:
    r"""Multiplies the Hessian of the loss by a vector, at about the cost of two gradients.

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
    r"""Finds the extreme eigenvalues of the Hessian of the loss, with their sign and their error.

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
    >>> pairs = hessian_eigenvalues(loss_fn, jnp.ones(4), jax.random.key(0), which="both")
    >>> print(pairs.values.round(3), bool(pairs.residuals.max() < 1e-4))
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


def hessian_trace(loss_fn: LossFn, params: PyTree, key: Array, *, probes: int = 32) -> Trace:
    r"""Estimates the trace of the Hessian of the loss, with its standard error.

    $$\operatorname{tr} H = \mathbb{E}\, v^\top H v, \qquad v_i = \pm 1$$

    Over the number of parameters it is the mean eigenvalue. Exact, by one product for each
    parameter, where there are no more parameters than probes.

    Args:
      loss_fn: from parameters to a scalar, with the batch inside it.
      params: any tree of arrays.
      key: of the random signs.
      probes: Hessian-vector products to spend, two at least.

    Raises:
      ValueError: if `probes` is less than 2.

    Hutchinson 1990, "A stochastic estimator of the trace of the influence matrix".

    >>> import jax, jax.numpy as jnp
    >>> loss_fn = lambda w: jnp.sum(jnp.array([5.0, 1.0, 0.5, -2.0]) * w**2) / 2
    >>> print(*hessian_trace(loss_fn, jnp.ones(4), jax.random.key(0)))
    4.5 0.0
    """
    if probes < 2:
        raise ValueError(f"probes must be at least 2, for a standard error, got {probes}.")
    flat, unravel = _ravel(params)

    def curvature(vector):
        product = hessian_vector_product(lambda w: loss_fn(unravel(w)), flat, vector)
        return jnp.sum(vector * product)

    if flat.size <= probes:
        trace = jnp.sum(lax.map(curvature, jnp.eye(flat.size, dtype=flat.dtype)))
        return Trace(trace, jnp.zeros_like(trace))
    draw = partial(jax.random.rademacher, shape=flat.shape, dtype=flat.dtype)
    drawn = lax.map(lambda key: curvature(draw(key)), jax.random.split(key, probes))
    return Trace(jnp.mean(drawn), jnp.std(drawn, ddof=1) / probes**0.5)


def sharpness(
    loss_fn: LossFn,
    params: PyTree,
    key: Array,
    *,
    learning_rate: float | Float[Array, ""],
    momentum: float | Float[Array, ""] = 0.0,
    iterations: int = 40,
) -> Sharpness:
    r"""Computes the largest eigenvalue of the Hessian against what the optimizer can bear.

    $$\frac{\lambda}{2 (1 + \alpha) / \eta}
      = \frac{\lambda \|w\|^2}{2 (1 + \alpha) / \eta_\text{eff}}, \qquad
      \eta_\text{eff} = \frac{\eta}{\|w\|^2}$$

    On a quadratic, gradient descent diverges above 1; networks that it trains rise to 1 and stay
    there. The ratio is dimensionless: no rescaling of the weights, which moves $\eta$ along,
    changes it.

    Args:
      loss_fn: from parameters to a scalar, with the whole training set inside it if the edge of
        stability is meant.
      params: any tree of arrays.
      key: of the random first direction of `hessian_eigenvalues`.
      learning_rate: $\eta$ of gradient descent; may be traced.
      momentum: $\alpha$ of heavy-ball momentum, `optax.sgd` for example; may be traced.
      iterations: Hessian-vector products to spend.

    Raises:
      TypeError, ValueError: if a rate is not a positive number, or a momentum not in [0, 1].

    Cohen et al. 2021 (arXiv:2103.00065), section 3.

    >>> import jax, jax.numpy as jnp
    >>> loss_fn = lambda w: jnp.sum(jnp.array([8.0, 1.0]) * w**2) / 2
    >>> sharp = sharpness(loss_fn, jnp.ones(2), jax.random.key(0), learning_rate=0.125)
    >>> print(sharp.eigenvalue.round(4), sharp.scale_free.round(4), sharp.to_edge.round(4))
    8.0 16.0 0.5
    """
    check_number("learning_rate", learning_rate, low=0.0, high=math.inf, open_low=True)
    check_momentum(momentum)
    pairs = hessian_eigenvalues(loss_fn, params, key, iterations=iterations)
    eigenvalue, residual = pairs.values[0], pairs.residuals[0]
    rate, alpha = (jnp.asarray(v, eigenvalue.dtype) for v in (learning_rate, momentum))
    length = _trees.norm(params)
    edge = 2 * (1 + alpha) / rate
    return Sharpness(eigenvalue, eigenvalue * length * length, eigenvalue / edge, residual)


def per_layer(
    measure: Callable[[LossFn, PyTree], Any],
    loss_fn: LossFn,
    params: PyTree,
    *,
    depth: int | None = None,
) -> dict[str, Any]:
    """Measures the loss as a function of each layer alone, all others fixed: by path.

    Of a measure of the Hessian it gives that of each block on the diagonal.

    Args:
      measure: from a loss and parameters, `partial(hessian_trace, key=key)` for example.
      loss_fn: from parameters to a scalar.
      params: any tree of arrays.
      depth: how many levels of the tree name a layer, as in `gradient_norms`. None: each array by
        itself.

    Returns:
      What `measure` gives for each layer; trees among it are lists of the layer's arrays.

    Raises:
      ValueError: if the tree is empty.

    >>> from functools import partial
    >>> import jax, jax.numpy as jnp
    >>> loss_fn = lambda w: jnp.sum(w["a"] ** 2) + 3 * jnp.sum(w["b"] ** 2) + w["a"][0] * w["b"][0]
    >>> params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    >>> traces = per_layer(partial(hessian_trace, key=jax.random.key(0)), loss_fn, params)
    >>> {path: float(trace) for path, (trace, error) in traces.items()}
    {'a': 4.0, 'b': 18.0}
    """
    leaves, structure = jax.tree.flatten(params)

    def of_layer(members: list[int]) -> Any:
        def loss_of(block: list[Array]) -> Float[Array, ""]:
            moved = dict(zip(members, block))
            return loss_fn(structure.unflatten([moved.get(i, w) for i, w in enumerate(leaves)]))

        return measure(loss_of, [leaves[i] for i in members])

    return {name: of_layer(members) for name, members in _trees.layers(params, depth).items()}


def _ravel(params: PyTree) -> tuple[Array, Callable[[Array], PyTree]]:
    """Returns the parameters as one vector of one type, and the way back to each array's own."""
    dtype = _trees.common_dtype(params)
    flat, unravel = ravel_pytree(jax.tree.map(lambda x: x.astype(dtype), params))

    def restore(vector: Array) -> PyTree:
        return jax.tree.map(lambda v, x: v.astype(x.dtype), unravel(vector), params)

    return flat, restore
