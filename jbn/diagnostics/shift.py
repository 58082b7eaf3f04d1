"""Internal covariate shift by both definitions: of activations, and of gradients."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jbn._moments import batch_moments
from jbn._numerics.arrays import check_features
from jbn._types import PyTree
from jbn.diagnostics import _trees
from jbn.diagnostics.gradients import gradient_cosine, gradient_distance


class ActivationShift(NamedTuple):
    """The shift of each unit's distribution.

    Attributes:
      mean: the new mean less the old, in old standard deviations.
      log_std: the logarithm of the new standard deviation over the old: 0.69 if it doubled.
    """

    mean: Float[Array, "C"]
    log_std: Float[Array, "C"]


class GradientShift(NamedTuple):
    """The change of each of L layers' gradients because the layers below it moved.

    Attributes:
      distance: between the two gradients, in the unit of a gradient.
      cosine: of the angle between them.
      gradient_norm: of the first one, for distances relative to it.
    """

    distance: Float[Array, "L"]
    cosine: Float[Array, "L"]
    gradient_norm: Float[Array, "L"]


def activation_shift(
    before: Float[Array, "*batch C"], after: Float[Array, "*other C"]
) -> ActivationShift:
    r"""Measures the drift of each unit's mean and deviation between two sets of activations.

    $$\frac{\mu' - \mu}{\sigma}, \qquad \log \frac{\sigma'}{\sigma}$$

    Infinite or NaN for a unit that did not vary before.

    Args:
      before, after: a layer's inputs at two times of training, features last. Take the same
        examples both times, or the drift is also that of the examples.

    Raises:
      TypeError, ValueError: if either is no batch, or they differ in features.

    Ioffe & Szegedy 2015 (arXiv:1502.03167), section 2, define the shift in words; Santurkar et al.
    2018 (arXiv:1805.11604), section 2, measure it by mean and variance.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[0.0], [2.0]])
    >>> shift = activation_shift(x, 3 * x)
    >>> print(shift.mean, shift.log_std.round(4))
    [2.] [1.0986]
    """
    old, new = batch_moments(before), batch_moments(after)
    check_features(before, after=new.mean)
    dtype = jnp.result_type(old.mean)
    mean, var = new.mean.astype(dtype), new.var.astype(dtype)
    log_std = (jnp.log(var) - jnp.log(old.var)) / 2
    return ActivationShift((mean - old.mean) / jnp.sqrt(old.var), log_std)


def gradient_shift(
    loss_fn: Callable[[PyTree], Float[Array, ""]],
    params: PyTree,
    new_params: PyTree,
    layers: Sequence[str | Sequence[str]],
    *,
    unmoved: Sequence[str] = (),
) -> GradientShift:
    r"""Measures how much each layer's gradient changes once the layers below it have moved.

    $$\|G_i - G_i'\| \quad \text{and} \quad \cos(G_i, G_i'), \qquad
      G_i = \nabla_{W_i} L(W_1, \dots, W_k), \quad
      G_i' = \nabla_{W_i} L(W_1', \dots, W_{i-1}', W_i, \dots, W_k)$$

    The first layer has none below it: distance 0 and cosine 1, to rounding.

    Args:
      loss_fn: from parameters to a scalar, with the same batch inside it both times.
      params: $W$, any tree of arrays.
      new_params: $W'$, after a step.
      layers: from input to output, each by the path of what belongs to it: "hidden_1", or
        "params/hidden_1", or several paths, ("hidden_1", "norm_1").
      unmoved: the paths of all other arrays, which stay as they were: what lies above the layers.

    Raises:
      ValueError: if a path names no array, or an array belongs to two layers or to none.

    Santurkar et al. 2018 (arXiv:1805.11604), definition 2.1 and figure 3.

    >>> import jax.numpy as jnp
    >>> loss_fn = lambda w: (w["a"] * w["b"]) ** 2 / 2
    >>> w = {"a": jnp.array(1.0), "b": jnp.array(3.0)}
    >>> moved = {"a": jnp.array(2.0), "b": jnp.array(5.0)}
    >>> shift = gradient_shift(loss_fn, w, moved, ["a", "b"])
    >>> print(shift.distance, shift.gradient_norm)
    [0. 9.] [9. 3.]
    """
    members = _members(params, layers, unmoved)
    index = {leaf: i for i, leaves in enumerate(members) for leaf in leaves}
    old, structure = jax.tree.flatten(params)
    new = structure.flatten_up_to(new_params)
    gradient_fn = jax.grad(loss_fn)

    def of_layer(tree: PyTree, leaves: list[int]) -> list[Array]:
        flat = jax.tree.leaves(tree)
        return [flat[leaf] for leaf in leaves]

    gradient = gradient_fn(params)

    def compare(leaves: list[int], moved: PyTree) -> tuple[Array, Array]:
        g, m = of_layer(gradient, leaves), of_layer(moved, leaves)
        return gradient_distance(g, m), gradient_cosine(g, m)

    def shifted(layer):
        mixed = [
            jnp.where(index[i] < layer, w_new, w) if i in index else w
            for i, (w, w_new) in enumerate(zip(old, new))
        ]
        moved = gradient_fn(jax.tree.unflatten(structure, mixed))
        return lax.switch(layer, [partial(compare, leaves) for leaves in members], moved)

    distance, cosine = lax.map(shifted, jnp.arange(len(members)))
    norms = jnp.stack([_trees.norm(of_layer(gradient, leaves)) for leaves in members])
    return GradientShift(distance, cosine, norms)


def _members(
    params: PyTree, layers: Sequence[str | Sequence[str]], unmoved: Sequence[str]
) -> list[list[int]]:
    """Returns the leaves of each layer, by number."""
    paths = _trees.paths(params)
    members = []
    for layer in [*layers, unmoved]:
        prefixes = [tuple(p.split("/")) for p in ([layer] if isinstance(layer, str) else layer)]
        for prefix in prefixes:
            if not any(path[: len(prefix)] == prefix for path in paths):
                raise ValueError(
                    f"layers: {'/'.join(prefix)!r} names no array of params, which has "
                    f"{', '.join('/'.join(path) for path in paths)}."
                )
        members.append(
            [i for i, path in enumerate(paths) if any(path[: len(p)] == p for p in prefixes)]
        )
    taken = [leaf for leaves in members for leaf in leaves]
    if not layers or len(taken) != len(set(taken)):
        raise ValueError(
            f"layers must be disjoint and at least one, got {layers!r} and unmoved={unmoved!r}."
        )
    if unnamed := sorted(set(range(len(paths))) - set(taken)):
        raise ValueError(
            f"layers leave {', '.join('/'.join(paths[i]) for i in unnamed)} unmoved. Put each into "
            'its layer, as in ("hidden_1", "norm_1"), or name it in unmoved=.'
        )
    return members[:-1]
