"""Angles and effective learning rates of weights whose scale does not matter.

Each function takes arrays or trees of them, and returns one number for each array, or one for
each neuron (the last axis of a kernel, in Flax's layout) with `per_neuron=True`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jbn._numerics.values import check_momentum
from jbn._types import PyTree
from jbn.diagnostics import _trees


def weight_gradient_cosine(
    weights: PyTree, gradients: PyTree, *, per_neuron: bool = False
) -> PyTree:
    r"""Returns the cosine of the angle between a weight and its gradient.

    $$\cos(w, g) = \frac{\langle w, g \rangle}{\|w\| \|g\|}$$

    Zero for weights whose scale does not matter, such as those before batch norm with
    $\epsilon = 0$. Near a right angle the cosine keeps digits that the angle loses. A zero has no
    direction: NaN, as for the angles below.

    Args:
      weights, gradients: arrays `(..., C)`, or trees of them.
      per_neuron: one number per neuron, `(C,)`, instead of one per array, `()`.

    van Laarhoven 2017 (arXiv:1706.05350), section 2; Arora, Li & Lyu 2019 (arXiv:1812.03981),
    Lemma 2.4.

    >>> import jax.numpy as jnp
    >>> w, g = jnp.array([[1.0, 3.0], [0.0, 4.0]]), jnp.array([[0.0, 6.0], [2.0, 8.0]])
    >>> print(weight_gradient_cosine(w, g, per_neuron=True))
    [0. 1.]
    """
    return _each(_cosine, weights, gradients, per_neuron=per_neuron)


def weight_gradient_angle(
    weights: PyTree, gradients: PyTree, *, per_neuron: bool = False
) -> PyTree:
    r"""Returns the angle between a weight and its gradient, in radians, from 0 to $\pi$.

    Args:
      weights, gradients: arrays `(..., C)`, or trees of them.
      per_neuron: one number per neuron, `(C,)`, instead of one per array, `()`.

    Sources as in `weight_gradient_cosine`.

    >>> import jax.numpy as jnp
    >>> w, g = jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 5.0, 0.0])
    >>> print(round(float(weight_gradient_angle(w, g)), 4))
    1.5708
    """
    return _each(_angle, weights, gradients, per_neuron=per_neuron)


def angular_update(before: PyTree, after: PyTree, *, per_neuron: bool = False) -> PyTree:
    r"""Returns the angle by which a step turned a weight, in radians, from 0 to $\pi$.

    $$\Delta = 2 \arcsin \frac{\|u - v\|}{2}, \qquad
      u = \frac{w_t}{\|w_t\|}, \quad v = \frac{w_{t+1}}{\|w_{t+1}\|}$$

    The arccosine of $\langle u, v \rangle$ would lose half the digits of so small an angle.
    With weight decay $\lambda$ and momentum $\alpha$, scale-invariant weights settle where
    $\Delta = \sqrt{2 \eta \lambda / (1 + \alpha)}$.

    Args:
      before, after: arrays `(..., C)`, or trees of them.
      per_neuron: one number per neuron, `(C,)`, instead of one per array, `()`.

    Wan et al. 2021 (arXiv:2006.08419), definition of the angular update and Theorem 2.

    >>> import jax.numpy as jnp
    >>> print(angular_update(jnp.array([1.0, 0.0]), jnp.array([5.0, 5e-5])))
    1e-05
    """
    return _each(_angle, before, after, per_neuron=per_neuron)


def effective_learning_rate(
    weights: PyTree,
    learning_rate: float | Float[Array, ""],
    *,
    momentum: float | Float[Array, ""] = 0.0,
    adaptive: bool = False,
    per_neuron: bool = False,
) -> PyTree:
    r"""Returns the rate at which the direction of a scale-invariant weight learns.

    $$\eta_\text{eff} = \frac{\eta}{(1 - \alpha) \|w\|^2}, \qquad
      \text{Adam:} \quad \eta_\text{eff} = \frac{\eta}{\|w\|}$$

    A loss that ignores the scale of $w$ has a gradient of order $1 / \|w\|$, and a step turns $w$
    by its length over $\|w\|$. Adam's step has the same length at any scale of the gradient. Two
    weights of one direction and one effective rate take the same course. Infinite where w is zero.

    Args:
      weights: an array `(..., C)`, or a tree of them.
      learning_rate: $\eta$; may be traced.
      momentum: $\alpha$ of heavy-ball momentum, whose steps add up to $1 / (1 - \alpha)$ of a
        gradient's; may be traced. Not for averages of gradients, as in Adam.
      adaptive: whether the optimizer divides by the gradient's size (Adam, RMSProp, Lion, signs).
      per_neuron: one number per neuron, `(C,)`, instead of one per array, `()`.

    Raises:
      TypeError, ValueError: if `momentum` is not in [0, 1], or given with `adaptive`.

    van Laarhoven 2017 (arXiv:1706.05350); Kosson et al. 2024 (arXiv:2305.17212).

    >>> import jax.numpy as jnp
    >>> print(effective_learning_rate(jnp.array([3.0, 4.0]), 0.5))
    0.02
    """
    check_momentum(momentum)
    if adaptive and not (isinstance(momentum, float | int) and momentum == 0):
        raise ValueError(
            f"momentum={momentum!r} with adaptive=True: Adam's average of gradients does not "
            "lengthen its steps. Leave the momentum out."
        )

    def rate(n: Array) -> Array:
        eta, alpha = (jnp.asarray(v, n.dtype) for v in (learning_rate, momentum))
        return eta / n if adaptive else eta / (1 - alpha) / n / n

    return jax.tree.map(rate, _each(_trees.norm, weights, per_neuron=per_neuron))


def _cosine(w: Array, g: Array) -> Float[Array, ""]:
    return _trees.inner(_trees.unit(w), _trees.unit(g))


def _angle(w: Array, g: Array) -> Float[Array, ""]:
    u, v = _trees.unit(w), _trees.unit(g)
    # Kahan: 2 arcsin(|u - v| / 2), and accurate near pi too.
    return 2 * jnp.arctan2(_trees.norm(u - v), _trees.norm(u + v))


def _each(measure: Callable[..., Array], *trees: PyTree, per_neuron: bool) -> PyTree:
    """Applies `measure` to each array, or to each neuron's vector."""

    def vectors(array: Array) -> Array:
        return array.reshape(-1, array.shape[-1]).T

    def of_arrays(*arrays: Array) -> Array:
        shapes = {array.shape for array in arrays}
        if len(shapes) > 1:
            raise ValueError(
                f"Arrays must agree in shape, got {' and '.join(map(str, sorted(shapes)))}."
            )
        if not per_neuron:
            return measure(*arrays)
        if not all(shapes):
            raise ValueError("per_neuron=True needs arrays of shape (..., C), got a scalar.")
        return jax.vmap(measure)(*map(vectors, arrays))

    _trees.checked_leaves(trees[0])
    return jax.tree.map(of_arrays, *trees)
