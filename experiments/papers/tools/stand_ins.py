"""Norms that stand in batch norm's place in a claim: Flax's own, dynamic tanh, none, a faulty one.

`NORMS` are the rivals of the page's table. A claim about a random network takes one as a function
(`as_function`), a claim about training as a `norm` of `tools.mlp.MLP`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from experiments.papers.claim import Outcome, Setting, StandIn
from experiments.papers.tools.deep import NO_EPSILON
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
BATCH_NORM = Standard()
DETACHED = {"detached statistics": Detached()}
"""Batch norm whose backward pass takes the statistics for constants: the usual mistake."""

Function = Callable[[jax.Array], jax.Array]


def as_function(norm: Any, epsilon: float = NO_EPSILON) -> Function:
    """Returns `norm`, as a study names it, as a function of `(examples, features)` at init.

    Scale is 1 and bias 0. `epsilon` is for norms that have one.
    """
    layer = Norm.of(norm, epsilon=epsilon).in_training().layer
    if layer is None:
        return lambda z: z
    if hasattr(layer, "epsilon"):
        layer = layer.clone(epsilon=epsilon)

    return lambda z: layer.init_with_output(jax.random.key(0), z)[0]


def beside_no_norm(arms: Callable[..., Any], setting: Setting, norm: Any) -> tuple[Any, Any]:
    """Returns what `arms` measured without a norm, and with `norm`.

    Args:
        arms: (setting, norms) -> what was measured with each; decorated by `claim.once`, so that
            rivals share the networks without a norm.
    """
    without, with_norm = arms(setting, (None, BATCH_NORM))
    return without, with_norm if norm == BATCH_NORM else arms(setting, (norm,))[0]


def stand_ins(
    measure: Callable[..., Outcome], norms: Mapping[str, Any] = NORMS, must_fail: Any = ()
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
