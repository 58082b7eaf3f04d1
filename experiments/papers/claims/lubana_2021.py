"""Lubana et al. 2021 and Labatie et al. 2021: what norms do to a batch in deep random networks.

One pass measures the angle between examples and the power in the batch's mean.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import (
    Check,
    Claim,
    Line,
    Outcome,
    Plot,
    Setting,
    at_least,
    near,
    once,
)
from experiments.papers.claims.yang_2019 import relu_cosine
from experiments.papers.tools.digits import digits
from experiments.papers.tools.spread import spread_each
from experiments.papers.tools.stand_ins import NORMS, RIVALS, as_layer, stand_ins
from jbn import Standard

BATCH_NORM = "batch norm"
_EXAMPLES = 64
_DEPTH = 50
GROUPS = {size: partial(nn.GroupNorm, num_groups=None, group_size=size) for size in (32, 8, 4)}
"""Group norm by the units of a group."""


class Pass(NamedTuple):
    """Of the activations after each layer of one random network."""

    cosine: jax.Array
    """Between two examples, mean over pairs."""
    power: jax.Array
    """Share of the mean square that is the square of the batch's mean, over all units."""


def cosine_map(cosine: Any) -> Any:
    """What a wide random layer of ReLU makes of the cosine of two examples, without a norm."""
    c = np.clip(cosine, -1, 1)
    return (np.sqrt(1 - c**2) + (np.pi - np.arccos(c)) * c) / np.pi


def without_norm(cosine: Any, depth: int) -> np.ndarray:
    """The cosine after each of `depth` layers, from that of the input."""
    found = []
    for _ in range(depth):
        cosine = cosine_map(cosine)
        found.append(cosine)
    return np.array(found)


def mean_cosine(h: jax.Array) -> jax.Array:
    """Of all pairs of different rows."""
    unit = h / jnp.linalg.norm(h, axis=1, keepdims=True)
    n = h.shape[0]
    return (jnp.sum(unit @ unit.T) - n) / (n * (n - 1))


def mean_power(h: jax.Array) -> jax.Array:
    """Square of the mean over rows, over the mean square; both summed over columns."""
    return jnp.sum(jnp.square(jnp.mean(h, axis=0))) / jnp.sum(jnp.mean(jnp.square(h), axis=0))


def deep_pass(norm: Any, width: int, x: jax.Array, seed: jax.Array) -> Pass:
    """`x`, `(examples, inputs)`, through random layers h <- ReLU(norm(h W)), W as He et al. do."""
    hidden = as_layer(norm, jax.nn.relu)

    def layer(h: jax.Array, key: jax.Array) -> tuple[jax.Array, Pass]:
        kernel = jax.random.normal(key, (width, width)) * np.sqrt(2 / width)
        h = jax.nn.relu(hidden(h, kernel))
        return h, Pass(mean_cosine(h), mean_power(h))

    # As if the first layer had as many inputs as the others: one layer to compile.
    inputs = x.shape[1]
    h = jnp.pad(x, ((0, 0), (0, width - inputs))) * np.sqrt(width / inputs)
    return jax.lax.scan(layer, h, jax.random.split(jax.random.key(seed), _DEPTH))[1]


def _width(setting: Setting) -> int:
    return setting.pick(full=512, quick=256)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=6, quick=4)


@once
def passes(setting: Setting) -> dict[str, Pass]:
    """Of every seed `(seeds, layers)`, by norm: both claims and all their stand-ins share them."""
    groups = {_group(size): norm for size, norm in GROUPS.items()}
    norms = {BATCH_NORM: Standard(), **RIVALS, **groups}
    runs = {name: partial(deep_pass, norm, _width(setting)) for name, norm in norms.items()}
    return spread_each(runs, _seeds(setting), given=[digits(_EXAMPLES).x])


def _group(size: int) -> str:
    return f"groups of {size}"


def measure_with(setting: Setting, name: str) -> Outcome:
    """The mean cosine of two examples after the last layer, with the norm of this name."""
    slack = 2 if setting.quick else 1
    found = passes(setting)
    seen, others = found[name], {rival: found[rival] for rival in NORMS}
    groups = {size: found[_group(size)] for size in GROUPS}
    at = f"mean cosine after {_DEPTH} layers"
    limit = relu_cosine(_EXAMPLES)
    x = digits(_EXAMPLES).x
    plain = without_norm(cosines(x)[np.triu_indices(_EXAMPLES, 1)], _DEPTH).mean(axis=1)
    checks = [
        Check(
            f"batch norm: {at}", seen.cosine[:, -1], near(limit, absolute=0.02 * slack), "theory"
        ),
        Check(
            f"no norm: {at}",
            others["no norm"].cosine[:, -1],
            near(float(plain[-1]), absolute=0.01 * slack),
            "theory",
            control=True,
        ),
        *(
            Check(
                f"{rival}: {at}",
                found[rival].cosine[:, -1],
                at_least(0.95),
                "regression",
                control=True,
            )
            for rival in ("layer norm", "RMS norm", "dynamic tanh")
        ),
        Check(
            f"group norm: {at}, groups of {max(GROUPS)} less groups of {min(GROUPS)}",
            groups[max(GROUPS)].cosine[:, -1] - groups[min(GROUPS)].cosine[:, -1],
            at_least(0.05),
            "regression",
            control=True,
        ),
    ]
    layers = np.arange(1, _DEPTH + 1)
    rivals = [Line(rival, layers, each.cosine) for rival, each in others.items()]
    plots = [
        Plot(
            "Two examples of a batch",
            "layer",
            "mean cosine",
            [
                Line("batch norm", layers, seen.cosine),
                Line("batch norm, limit", layers, np.full(_DEPTH, limit), expected=True),
                rivals[0],
                Line("no norm, theory", layers, plain, expected=True),
                *rivals[1:],
            ],
        ),
        Plot(
            "Group norm, by the units of a group",
            "layer",
            "mean cosine",
            [Line(_group(size), layers, each.cosine) for size, each in groups.items()],
        ),
    ]
    ends = ", ".join(f"{size}: {each.cosine[:, -1].mean():.3f}" for size, each in groups.items())
    return Outcome(checks, plots, [f"Group norm, by the units of a group: {ends}."])


def cosines(x: Any) -> Any:
    """Of every pair of rows."""
    unit = x / jnp.linalg.norm(x, axis=1, keepdims=True)
    return unit @ unit.T


def describe(setting: Setting) -> str:
    """The set-up of all claims about these passes."""
    return (
        f"{_EXAMPLES} digits through {_DEPTH} random layers h <- ReLU(norm(h W)) of "
        f"{_width(setting)} units, W ~ N(0, 2/inputs), scale 1, bias 0, no epsilon; "
        f"{len(_seeds(setting))} seeds."
    )


APART = Claim(
    name="lubana-apart",
    sentence="In a deep random network only batch norm keeps examples apart; with no norm, layer "
    "norm, RMS norm or dynamic tanh all become one, with group norm the less so the smaller its "
    "groups.",
    citation="Lubana, Dick & Tanaka 2021, Beyond BatchNorm: Towards a Unified Understanding of "
    "Normalization in Deep Learning, NeurIPS, arXiv:2106.05956, section 4; Labatie, Masters, "
    "Eaton-Rosen & Luschi 2021, Proxy-Normalizing Activations to Match Batch Normalization while "
    "Removing Batch Dependence, NeurIPS, arXiv:2106.03743",
    setup=describe,
    formula="batch norm: J(-1/(B - 1)), about 1/pi; none: J applied once a layer, to the cosine "
    "of every pair; J(c) = (sqrt(1 - c²) + (pi - arccos c) c)/pi",
    measure=lambda setting: measure_with(setting, BATCH_NORM),
    group="further",
    registered="2026-11-28",
    stand_ins=stand_ins(measure_with, {name: name for name in RIVALS}, must_fail=NORMS),
)
