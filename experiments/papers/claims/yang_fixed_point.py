"""Yang et al. 2019: deep networks with batch norm and ReLU forget their input."""

from functools import partial
from typing import Any, NamedTuple

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
    StandIn,
    at_least,
    at_most,
    near,
)
from experiments.papers.claims.yang_2019 import ACTIVATIONS, CITATION, Activation, relu_cosine
from experiments.papers.tools.spread import spread_each
from experiments.papers.tools.stand_ins import as_layer, stand_ins
from jbn import Standard

_DEPTH = 30
_ALIKE = 0.9
_LINEAR = 32  # batch size of the linear layers, and of ReLU's narrower ones
_NARROWER = 4


class Angles(NamedTuple):
    """Cosines between the examples of a batch, after each layer."""

    mean: jax.Array
    """Over all pairs."""
    deviation: jax.Array
    """Standard deviation over pairs."""
    clusters: jax.Array
    """Mean over pairs of one cluster, less that over pairs of two."""


def clustered(key: jax.Array, batch_size: int, width: int) -> jax.Array:
    """Two clusters, half of the examples each: cosine 0.9 within one, 0 between them."""
    centres, own = jnp.split(jax.random.normal(key, (2 + batch_size, width)), [2])
    centre = jnp.repeat(centres, batch_size // 2, axis=0)
    return jnp.sqrt(_ALIKE) * centre + jnp.sqrt(1 - _ALIKE) * own


def angles(h: jax.Array) -> Angles:
    """Of a batch whose first half is one cluster and whose second is the other."""
    n = h.shape[0]
    unit = h / jnp.linalg.norm(h, axis=1, keepdims=True)
    cosines = unit @ unit.T
    first, second = np.triu_indices(n, 1)
    pairs = cosines[first, second]
    same = (first < n // 2) == (second < n // 2)
    return Angles(jnp.mean(pairs), jnp.std(pairs), jnp.mean(pairs[same]) - jnp.mean(pairs[~same]))


def forward_pass(
    activation: Activation, batch_size: int, width: int, norm: Any, seed: jax.Array
) -> Angles:
    """Two clusters through random layers h <- activation(norm(h W))."""
    keys = jax.random.split(jax.random.key(seed), _DEPTH + 1)
    hidden = as_layer(norm, activation)

    def layer(h: jax.Array, key: jax.Array) -> tuple[jax.Array, Angles]:
        h = activation(hidden(h, jax.random.normal(key, (width, width)) / np.sqrt(width)))
        return h, angles(h)

    return jax.lax.scan(layer, clustered(keys[0], batch_size, width), keys[1:])[1]


def linear_memory(batch_size: int) -> float:
    """Share of a small difference among angles that a linear layer with batch norm passes on.

    For z normal in n = B - 1 dimensions with covariance I + D, D small and without trace,
    n E[z z'/|z|²] is I + n/(n + 2) D.
    """
    return (batch_size - 1) / (batch_size + 1)


def _width(setting: Setting) -> int:
    return setting.pick(full=512, quick=256)


def _batch_sizes(setting: Setting) -> tuple[int, ...]:
    return (8, 32) if setting.quick else (8, 16, 32, 64)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=24, quick=16)


def measure(setting: Setting, norm: Any = Standard(), depth: int = _DEPTH) -> Outcome:
    """Angles after the first layer and after layer `depth`, beside theory."""
    width = _width(setting)
    nets = {("ReLU", n): (ACTIVATIONS["ReLU"], n) for n in _batch_sizes(setting)}
    nets["linear", _LINEAR] = ACTIVATIONS["linear"], _LINEAR
    runs: dict[Any, Any] = {
        name: partial(forward_pass, *net, width, norm) for name, net in nets.items()
    }
    runs["narrow"] = partial(forward_pass, *nets["ReLU", _LINEAR], width // _NARROWER, norm)
    seen = spread_each(runs, _seeds(setting))
    narrow, linear = seen.pop("narrow"), seen.pop(("linear", _LINEAR))
    slack, last = setting.pick(1, 2), depth - 1
    checks = []
    for (name, batch_size), found in seen.items():
        at = f"{name}, batch size {batch_size}"
        expected = relu_cosine(batch_size)
        apart = f"{at}: cosine within a cluster less that between clusters"
        # A finite width adds to the mean, and never takes away.
        allowed = near(expected)._replace(
            low=expected - 0.004 * slack, high=expected + 0.015 * slack
        )
        checks += [
            Check(f"{apart}, layer 1", found.clusters[:, 0], at_least(0.3), "theory", control=True),
            Check(
                f"{apart}, layer {depth}",
                found.clusters[:, last],
                near(0.0, absolute=0.02 * slack),
                "theory",
            ),
            Check(
                f"{at}: cosine, mean over pairs, layer {depth}",
                found.mean[:, last],
                allowed,
                "theory",
            ),
            Check(
                f"{at}: standard deviation over pairs, layer {depth}",
                found.deviation[:, last],
                at_most(0.08 * np.sqrt(512 / width)),
                "regression",
            ),
        ]
    wider = seen["ReLU", _LINEAR].deviation[:, last] / narrow.deviation[:, last]
    quantity = (
        f"ReLU, batch size {_LINEAR}: exponent of the standard deviation over the width, "
        f"{width // _NARROWER} to {width}, layer {depth}"
    )
    exponent = np.log(wider) / np.log(_NARROWER)
    checks.append(Check(quantity, exponent, near(-0.5, absolute=0.1), "theory"))
    return Outcome(checks, _plots(seen, linear), [*_remarks(linear), _MOMENT])


_MOMENT = (
    "The mean of the squared activations is 1/2 after any number of layers and says nothing of "
    "depth, so it is not checked."
)


def _plots(relu: dict[tuple[str, int], Angles], linear: Angles) -> list[Plot]:
    layers = np.arange(1, _DEPTH + 1)
    nets = {f"ReLU, batch size {n}": found for (_, n), found in relu.items()}
    nets[f"linear, batch size {_LINEAR}"] = linear
    sizes = [n for _, n in relu]
    last = np.stack([found.mean[:, -1] for found in relu.values()], axis=1)
    return [
        Plot(
            "Two clusters come in",
            "layer",
            "cosine within less between clusters",
            [Line(name, layers, found.clusters) for name, found in nets.items()],
        ),
        Plot(
            "Two clusters come in",
            "layer",
            "standard deviation of the cosine over pairs",
            [Line(name, layers, found.deviation) for name, found in nets.items()],
        ),
        Plot(
            f"After {_DEPTH} layers of ReLU",
            "batch size",
            "cosine, mean over pairs",
            [
                Line("batch norm", sizes, last),
                Line("theory", sizes, [relu_cosine(n) for n in sizes], expected=True),
            ],
            log="x",
        ),
    ]


def _remarks(linear: Angles) -> list[str]:
    apart, deviation = linear.clusters.mean(axis=0), linear.deviation.mean(axis=0)
    return [
        f"Linear layers do not forget so soon. Each keeps (B - 1)/(B + 1) of a small difference, "
        f"{linear_memory(_LINEAR):.3f} in a batch of {_LINEAR}, and the finite width adds its own: "
        f"cosines within and between the clusters differ by {apart[0]:.2f} after the first layer "
        f"and {apart[-1]:.2f} after the last, where the standard deviation over pairs is "
        f"{deviation[-1]:.2f}. Their mean is -1/(B - 1) after any layer, since centred rows sum to "
        "zero.",
    ]


def _describe(setting: Setting) -> str:
    sizes = _batch_sizes(setting)
    return (
        f"Two clusters of B/2 examples (cosine {_ALIKE:g} within, 0 between), B of "
        f"{', '.join(map(str, sizes))}, through {_DEPTH} layers h = relu(BN(h W)) of width "
        f"{_width(setting)}, W ~ N(0, 1/width), no epsilon, gamma 1, beta 0; "
        f"{len(_seeds(setting))} seeds. Linear layers besides, B = {_LINEAR}."
    )


FIXED_POINT = Claim(
    name="yang-fixed-point",
    sentence="Deep ReLU networks with batch norm forget their input: examples that come in as two "
    "clusters end at one angle to each other, the wider the network the more nearly.",
    citation=f"{CITATION}, theorem 5",
    setup=_describe,
    formula="cosine of any two examples J(-1/(B - 1)), "
    "J(c) = (sqrt(1 - c²) + (pi - arccos c) c)/pi",
    measure=measure,
    group="further",
    registered="2026-11-28",
    changes=(
        "2026-11-28: was the mean cosine of standard normal examples, alike from the first layer "
        "on, and of linear layers, whose mean is the algebra of centring; now two clusters, out of "
        "range after the first layer, and the deviation over pairs.",
    ),
    stand_ins=(
        *stand_ins(measure, must_fail=("no norm", "layer norm")),
        StandIn("one layer", lambda setting: measure(setting, depth=1), must_fail=True),
    ),
)
