"""Balduzzi et al. 2017: gradients of deep networks are noise, and batch norm makes them more so."""

from functools import partial

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
    at_most,
)
from experiments.papers.tools.deep import NO_EPSILON
from experiments.papers.tools.spread import spread_each
from jbn import batch_norm, init

_CITATION = (
    "Balduzzi, Frean, Leary, Lewis, Ma & McWilliams 2017, The Shattered Gradients Problem, ICML, "
    "arXiv:1702.08591"
)
_DEPTH = 24
_RESIDUAL_DEPTH = 50
_LAGS = 15
_RANGE = 2.0
_POINTS = 256


def gradients(norm: bool, residual: float | None, width: int, seed: jax.Array) -> jax.Array:
    """d sum(y) / dx at each of 256 points x in [-2, 2], for a random network y(x).

    Layers are h <- relu(BN(h W)), or with `residual` h <- h + residual relu(BN(h)) W.
    """
    depth = _DEPTH if residual is None else _RESIDUAL_DEPTH
    keys = jax.random.split(jax.random.key(seed), depth + 3)
    slopes, out = jax.random.normal(keys[0], (width,)), jax.random.normal(keys[1], (width,))
    # The first layer's kinks lie anywhere among the points.
    kinks = jax.random.uniform(keys[2], (width,), minval=-_RANGE, maxval=_RANGE)

    def normalised(z: jax.Array) -> jax.Array:
        return batch_norm(z, *init(width), epsilon=NO_EPSILON)[0] if norm else z

    def layer(h: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        kernel = jax.random.normal(key, (width, width)) * jnp.sqrt(2 / width)
        if residual is None:
            return jax.nn.relu(normalised(h @ kernel)), None
        return h + residual * jax.nn.relu(normalised(h)) @ kernel, None

    def total(x: jax.Array) -> jax.Array:
        h = jax.nn.relu(normalised((x[:, None] - kinks[None]) * slopes[None]))
        h, _ = jax.lax.scan(layer, h, keys[3:])
        return jnp.sum(h @ out)

    return jax.grad(total)(jnp.linspace(-_RANGE, _RANGE, _POINTS))


def autocorrelation(gradient: np.ndarray) -> np.ndarray:
    """Of each row of gradients, at lags 0 to 15."""
    centred = gradient - gradient.mean(axis=1, keepdims=True)
    covariance = [
        (centred[:, : _POINTS - lag] * centred[:, lag:]).sum(axis=1) for lag in range(_LAGS + 1)
    ]
    return np.stack(covariance, axis=1) / covariance[0][:, None]


def _correlations(
    setting: Setting, nets: dict[str, tuple[bool, float | None]]
) -> dict[str, np.ndarray]:
    seeds = setting.seeds(full=24, quick=16)
    width = setting.pick(full=200, quick=100)
    runs = {name: partial(gradients, *net, width) for name, net in nets.items()}
    return {name: autocorrelation(found) for name, found in spread_each(runs, seeds).items()}


def _plot(correlations: dict[str, np.ndarray]) -> Plot:
    lags = np.arange(_LAGS + 1)
    lines = [Line(name, lags, found) for name, found in correlations.items()]
    return Plot(f"Gradients at {_POINTS} points", "lag, points", "autocorrelation", lines)


def measure_residual(setting: Setting) -> Outcome:
    """The autocorrelation of neighbours with batch norm: plain, and with residual branches."""
    plain, scaled = "plain, 24 layers", "residual, 50 layers, scaled by 0.1"
    nets: dict[str, tuple[bool, float | None]] = {
        plain: (True, None),
        scaled: (True, 0.1),
        "residual, 50 layers": (True, 1.0),
    }
    correlations = _correlations(setting, nets)
    allowed = {plain: at_most(0.1), scaled: at_least(0.85)}
    checks = [
        Check(
            f"{name}: autocorrelation of neighbours",
            correlations[name][:, 1],
            allowed[name],
            "regression",
        )
        for name in allowed
    ]
    return Outcome(checks, [_plot(correlations)])


def measure_plain(setting: Setting) -> Outcome:
    """What batch norm changes in plain networks, seed by seed."""
    nets: dict[str, tuple[bool, float | None]] = {
        "without": (False, None),
        "with batch norm": (True, None),
    }
    correlations = _correlations(setting, nets)
    change = correlations["with batch norm"][:, 1] - correlations["without"][:, 1]
    check = Check(
        "autocorrelation of neighbours, with batch norm less without",
        change,
        at_least(0.0),
        "regression",
    )
    without, with_norm = (found[:, 1].mean() for found in correlations.values())
    remarks = [
        f"With batch norm {with_norm:.2f}, without {without:.2f}. The paper finds "
        "noise without it too, in networks with more biases and so more kinks."
    ]
    return Outcome([check], [_plot(correlations)], remarks)


_SETUP = (
    "256 points in [-2, 2] as one batch, width 200, He initialisation, first-layer kinks uniform "
    "over the points and no other bias; gradients of the sum of all outputs; 24 seeds."
)

RESIDUAL = Claim(
    name="balduzzi-residual",
    sentence="The gradients of plain deep networks with batch norm are white noise over their "
    "inputs; residual branches scaled down keep them smooth.",
    citation=_CITATION,
    setup=_SETUP,
    formula="autocorrelation at lag 1 of dy/dx over the points",
    measure=measure_residual,
    group="further",
)

PLAIN = Claim(
    name="balduzzi-plain",
    sentence="Batch norm keeps the gradients of plain deep networks from shattering.",
    citation=f"{_CITATION}, who do not say so: it is often said of batch norm",
    setup=f"{_SETUP} 24 layers.",
    formula="autocorrelation at lag 1 of dy/dx over the points, with less without",
    measure=measure_plain,
    group="contested",
)
