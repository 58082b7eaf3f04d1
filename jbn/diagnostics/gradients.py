"""Gradients as vectors: norms, noise, distances and angles."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbn._numerics.values import check_number
from jbn._types import PyTree
from jbn.diagnostics import _trees


class NoiseScale(NamedTuple):
    """The estimates of `gradient_noise_scale`.

    Attributes:
      noise_scale: trace / squared_norm, in examples.
      trace: of the covariance of one example's gradient.
      squared_norm: of the true gradient; an unbiased estimate, so it may fall below zero.
    """

    noise_scale: Float[Array, ""]
    trace: Float[Array, ""]
    squared_norm: Float[Array, ""]


def gradient_norms(gradients: PyTree, *, depth: int | None = None) -> dict[str, Float[Array, ""]]:
    r"""Returns the L2 norm of each layer's gradient, by path.

    $$\|g_l\|_2 = \sqrt{\textstyle\sum_i g_{l,i}^2}$$

    Args:
      gradients: any tree of arrays; updates and weights serve as well.
      depth: how many levels of the tree name a layer. None: each array by itself, under
        "hidden_1/kernel"; 1: all arrays under "hidden_1" together; 0: the whole tree, under "".

    Returns:
      Scalars by path, in the unit of the loss per unit of weight. Exact for lengths whose squares
      would overflow or vanish.

    Raises:
      ValueError: if the tree is empty.

    >>> import jax.numpy as jnp
    >>> gradients = {"hidden": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.array([3.0, 0.0])}}
    >>> {path: float(norm) for path, norm in gradient_norms(gradients).items()}
    {'hidden/bias': 3.0, 'hidden/kernel': 4.0}
    >>> {path: float(norm) for path, norm in gradient_norms(gradients, depth=1).items()}
    {'hidden': 5.0}
    """
    layers, leaves = _trees.layers(gradients, depth), _trees.checked_leaves(gradients)
    return {name: _trees.norm([leaves[i] for i in members]) for name, members in layers.items()}


def gradient_noise_scale(gradients: PyTree, *, batch_size: int) -> NoiseScale:
    r"""Estimates the simple noise scale: the batch size at which noise equals gradient.

    $$B_\text{simple} = \frac{\operatorname{tr} \Sigma}{|G|^2}, \qquad
      \widehat{\operatorname{tr} \Sigma} = \frac{b}{K - 1} \sum_k |g_k - \bar g|^2, \qquad
      \widehat{|G|^2} = |\bar g|^2 - \frac{\widehat{\operatorname{tr} \Sigma}}{b K}$$

    Trace and squared norm are unbiased, their ratio is not: average each over many steps, then
    divide. These are the paper's estimators for batches of $b$ and $bK$ examples, without the
    difference of two large numbers. The ratio of two zeros is NaN.

    Args:
      gradients: a tree whose arrays have a leading axis over K independent batches, at the same
        parameters (`jax.vmap` of the gradient over batches).
      batch_size: the number of examples $b$ behind each.

    Raises:
      ValueError: if there are fewer than two batches, or leading axes differ.
      TypeError, ValueError: if `batch_size` is not a positive number.

    McCandlish et al. 2018 (arXiv:1812.06162), equation 2.9 and appendix A.1. Under batch norm an
    example's gradient depends on its batch, and $\Sigma$ means $b$ times the batch's covariance.

    >>> import jax.numpy as jnp
    >>> gradients = jnp.array([[2.0, 1.0], [2.0, -1.0]])
    >>> estimate = gradient_noise_scale(gradients, batch_size=8)
    >>> print(estimate.trace, estimate.squared_norm)
    16.0 3.0
    """
    check_number("batch_size", batch_size, low=0.0, high=math.inf, open_low=True)
    scaled, scale = _trees.rescale(gradients)
    deviations, mean, batches = _squared_deviations(scaled)
    trace = deviations * (batch_size / (batches - 1))
    squared_norm = _trees.inner(mean, mean) - trace / (batch_size * batches)
    ratio = trace / squared_norm
    return NoiseScale(ratio, trace * scale * scale, squared_norm * scale * scale)


def relative_noise(gradients: PyTree) -> Float[Array, ""]:
    r"""Measures how much the batch decides the gradient.

    $$\frac{\sqrt{\frac{1}{K} \sum_k |g_k - \bar g|^2}}{|\bar g|}$$

    Zero if all batches agree; gradients that are all noise give about $\sqrt{K - 1}$, the most
    that K batches can show. Dimensionless; NaN if all gradients are zero.

    Args:
      gradients: a tree whose arrays have a leading axis over K batches, at the same parameters.

    Raises:
      ValueError: if there are fewer than two batches, or leading axes differ.

    For many batches of size $b$ its square is $B_\text{simple} / b$ of `gradient_noise_scale`, from
    McCandlish et al. 2018 (arXiv:1812.06162), equation 2.9.

    >>> import jax.numpy as jnp
    >>> print(relative_noise(jnp.array([[2.0, 1.0], [2.0, -1.0]])))
    0.5
    """
    scaled, _ = _trees.rescale(gradients)
    deviations, mean, batches = _squared_deviations(scaled)
    return jnp.sqrt(deviations / batches) / _trees.norm(mean)


def gradient_cosine(a: PyTree, b: PyTree) -> Float[Array, ""]:
    r"""Returns the cosine of the angle between two gradients, each taken as one vector.

    $$\frac{\langle a, b \rangle}{\|a\| \|b\|}$$

    Args:
      a, b: trees of the same structure, such as the gradients of two successive steps. A zero
        gradient has no direction: NaN.

    >>> import jax.numpy as jnp
    >>> print(gradient_cosine({"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([3.0, 4.0])}))
    0.6
    """
    return _trees.inner(_trees.unit(a), _trees.unit(b))


def gradient_distance(a: PyTree, b: PyTree) -> Float[Array, ""]:
    r"""Returns the L2 distance between two gradients, $\|a - b\|$, in the unit of a gradient.

    Args:
      a, b: trees of the same structure, such as the gradients of two successive steps.

    Santurkar et al. 2018 (arXiv:1805.11604), section 3.1, call it gradient predictiveness.

    >>> import jax.numpy as jnp
    >>> print(gradient_distance({"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([4.0, 4.0])}))
    5.0
    """
    return _trees.norm(_trees.minus(a, b))


def _squared_deviations(gradients: PyTree) -> tuple[Float[Array, ""], PyTree, int]:
    """Returns the sum over batches of |g_k - mean|^2, the mean, and the number of batches."""
    shapes = {leaf.shape[:1] for leaf in _trees.checked_leaves(gradients)}
    if len(shapes) > 1 or shapes & {(), (0,), (1,)}:
        raise ValueError(
            "gradients must have one leading axis over two batches or more in every array, got "
            f"leading axes {sorted(shapes)}. Stack them: jax.vmap(gradient, (None, 0))."
        )
    dtype = _trees.common_dtype(gradients)
    mean = jax.tree.map(lambda g: jnp.mean(g.astype(dtype), axis=0, keepdims=True), gradients)
    rest = _trees.minus(gradients, mean)
    return _trees.inner(rest, rest), mean, shapes.pop()[0]
