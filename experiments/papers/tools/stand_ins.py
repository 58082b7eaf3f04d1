"""What stands in batch norm's place in a claim: other norms, none, a faulty one, other weights.

`RIVALS` are those of the page's table. A claim about a random network takes one as a layer
(`as_layer`) or a function (`as_function`), a claim about training as a `norm` of `tools.mlp.MLP`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from experiments.papers.claim import Outcome, Setting, StandIn
from experiments.papers.tools.deep import NO_EPSILON
from experiments.papers.tools.in_weights import (
    UNIT_VARIANCE,
    WEIGHT_STANDARDISATION,
    Activation,
    InWeights,
    NoPlace,
)
from experiments.study.norms import DynamicTanh, Norm
from jbn import Detached, Standard

GROUPS = 4

NORMS: Mapping[str, Any] = {
    "no norm": None,
    "layer norm": nn.LayerNorm,
    "RMS norm": nn.RMSNorm,
    "group norm": partial(nn.GroupNorm, num_groups=GROUPS),
    "dynamic tanh": DynamicTanh,
}
RIVALS: Mapping[str, Any] = {
    **NORMS,
    "weight standardisation": WEIGHT_STANDARDISATION,
    "tuned initial weights": UNIT_VARIANCE,
}
BATCH_NORM = Standard()
DETACHED = {"detached statistics": Detached()}
"""Batch norm whose backward pass takes the statistics for constants: the usual mistake."""

Function = Callable[[jax.Array], jax.Array]
_OVER_UNITS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)


def as_function(norm: Any, epsilon: float = NO_EPSILON) -> Function:
    """Returns `norm`, as a study names it, as a function of `(examples, features)` at init.

    Scale is 1 and bias 0. `epsilon` is for norms that have one.

    Raises:
        NoPlace: for what is made in the weights of a layer; when called, for a norm over the units
            of one example where there is one unit.
    """
    if isinstance(norm, InWeights):
        norm()
    layer = Norm.of(norm, epsilon=epsilon).in_training().layer
    if layer is None:
        return lambda z: z
    if hasattr(layer, "epsilon"):
        layer = layer.clone(epsilon=epsilon)

    def function(z: jax.Array) -> jax.Array:
        if isinstance(layer, _OVER_UNITS) and z.shape[-1] == 1:
            raise NoPlace("It normalises over the units of one example, and here is but one unit.")
        return layer.init_with_output(jax.random.key(0), z)[0]

    return function


def as_layer(
    norm: Any, activation: Activation, epsilon: float = NO_EPSILON, *, trained: bool = False
) -> Callable[..., jax.Array]:
    """Returns (h, kernel) -> norm(h @ kernel), a layer before its activation.

    The layer's third argument, if it has one, is added to the product.

    Args:
        norm: as a study names it, or made in the weights.
        activation: that h comes from, of the layer before.
        epsilon: of norms that have one.
        trained: whether kernels are trained, and not random ones of which nothing else is asked.

    Raises:
        NoPlace: for initial weights where kernels are trained: they have begun elsewhere.
    """
    change = norm.change if isinstance(norm, InWeights) else None
    if isinstance(norm, InWeights) and norm.at_start and trained:
        raise NoPlace("It is of initial weights, which this claim draws before it has inputs.")
    normalise = as_function(None if change else norm, epsilon)

    def layer(h: jax.Array, kernel: jax.Array, added: jax.Array | None = None) -> jax.Array:
        z = h @ (change(kernel, h, activation) if change else kernel)
        return normalise(z if added is None else z + added)

    return layer


def beside_no_norm(arms: Callable[..., Any], setting: Setting, norm: Any) -> tuple[Any, Any]:
    """Returns what `arms` measured without a norm, and with `norm`.

    Args:
        arms: (setting, norms) -> what was measured with each; decorated by `claim.once`, so that
            rivals share the networks without a norm.
    """
    without, with_norm = arms(setting, (None, BATCH_NORM))
    return without, with_norm if norm == BATCH_NORM else arms(setting, (norm,))[0]


def stand_ins(
    measure: Callable[..., Outcome], norms: Mapping[str, Any] = RIVALS, must_fail: Any = ()
) -> list[StandIn]:
    """Returns stand-ins for a claim whose measurement takes a norm as its second argument.

    Args:
        measure: (setting, norm) -> what was measured.
        norms: by name.
        must_fail: names of those that are negative controls.
    """

    def with_norm(norm: Any) -> Callable[[Setting], Outcome]:
        return lambda setting: measure(setting, norm)

    return [StandIn(name, with_norm(norm), name in must_fail) for name, norm in norms.items()]
