"""Balduzzi et al. 2017: gradients of deep networks are noise, and batch norm makes them more so."""

from functools import partial
from typing import Any

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
)
from experiments.papers.tools.spread import spread_each
from experiments.papers.tools.stand_ins import DETACHED, RIVALS, as_function, stand_ins
from jbn import Standard

_CITATION = (
    "Balduzzi, Frean, Leary, Lewis, Ma & McWilliams 2017, The Shattered Gradients Problem, ICML, "
    "arXiv:1702.08591"
)
_DEPTH = 24
_RESIDUAL_DEPTH = 50
_LAGS = 15
_RANGE = 2.0
_POINTS = 256


def gradients(norm: Any, residual: float | None, width: int, seed: jax.Array) -> jax.Array:
    """d sum(y) / dx at each of 256 points x in [-2, 2], for a random network y(x).

    Layers are h <- relu(norm(h W)), or with `residual` h <- h + residual relu(norm(h)) W.
    """
    depth = _DEPTH if residual is None else _RESIDUAL_DEPTH
    keys = jax.random.split(jax.random.key(seed), depth + 3)
    slopes, out = jax.random.normal(keys[0], (width,)), jax.random.normal(keys[1], (width,))
    # The first layer's kinks lie anywhere among the points.
    kinks = jax.random.uniform(keys[2], (width,), minval=-_RANGE, maxval=_RANGE)

    normalised = as_function(norm)

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


Net = tuple[Any, float | None]
"""The norm, and the scale of residual branches."""


def _width(setting: Setting) -> int:
    return setting.pick(full=200, quick=100)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=24, quick=16)


def _correlations(setting: Setting, nets: dict[str, Net]) -> dict[str, np.ndarray]:
    runs = {name: partial(gradients, *net, _width(setting)) for name, net in nets.items()}
    found = spread_each(runs, _seeds(setting))
    return {name: autocorrelation(gradient) for name, gradient in found.items()}


def _plot(correlations: dict[str, np.ndarray]) -> Plot:
    lags = np.arange(_LAGS + 1)
    lines = [Line(name, lags, found) for name, found in correlations.items()]
    return Plot(f"Gradients at {_POINTS} points", "lag, points", "autocorrelation", lines)


def measure_residual(setting: Setting, norm: Any = Standard()) -> Outcome:
    """The autocorrelation with batch norm: plain, and with residual branches."""
    plain = f"plain, {_DEPTH} layers"
    scaled = f"residual, {_RESIDUAL_DEPTH} layers, scaled by 0.1"
    nets: dict[str, Net] = {
        plain: (norm, None),
        scaled: (norm, 0.1),
        f"residual, {_RESIDUAL_DEPTH} layers": (norm, 1.0),
    }
    correlations = _correlations(setting, nets)
    checks = [
        Check(
            f"{plain}: autocorrelation of neighbours",
            correlations[plain][:, 1],
            near(0.0, absolute=0.1),
            "published",
        ),
        Check(
            f"{plain}: autocorrelation, mean over lags 1 to {_LAGS}",
            correlations[plain][:, 1:].mean(axis=1),
            near(0.0, absolute=0.05),
            "published",
        ),
        Check(
            f"{scaled}: autocorrelation of neighbours",
            correlations[scaled][:, 1],
            at_least(0.85),
            "regression",
        ),
    ]
    remarks = [
        "White noise is what the paper's figures show; that the autocorrelation is near zero at "
        f"{_LAGS} lags is all that is tested of it. The gradients of {_POINTS} points, less their "
        f"mean, have one of -1/{_POINTS} if they are noise."
    ]
    return Outcome(checks, [_plot(correlations)], remarks)


def measure_plain(setting: Setting, norm: Any = Standard()) -> Outcome:
    """What batch norm changes in plain networks, seed by seed."""
    nets: dict[str, Net] = {"no norm": (None, None), "batch norm": (norm, None)}
    correlations = _correlations(setting, nets)
    change = correlations["batch norm"][:, 1] - correlations["no norm"][:, 1]
    check = Check(
        "autocorrelation of neighbours, batch norm less no norm", change, at_least(0.05), "slogan"
    )
    without, with_norm = (found[:, 1].mean() for found in correlations.values())
    remarks = [
        f"With batch norm {with_norm:.2f}, without {without:.2f}. The paper finds "
        "noise without it too, in networks with more biases and so more kinks."
    ]
    return Outcome([check], [_plot(correlations)], remarks)


def _setup(setting: Setting) -> str:
    return (
        f"{_POINTS} points in [-{_RANGE:g}, {_RANGE:g}] as one batch, width {_width(setting)}, He "
        "initialisation, first-layer kinks uniform over the points and no other bias; gradients "
        f"of the sum of all outputs; {len(_seeds(setting))} seeds."
    )


RESIDUAL = Claim(
    name="balduzzi-residual",
    sentence="The gradients of plain deep networks with batch norm are white noise over their "
    "inputs; residual branches scaled down keep them smooth.",
    citation=_CITATION,
    setup=_setup,
    formula="autocorrelation of dy/dx over the points: 0 at every lag but the first of all",
    measure=measure_residual,
    group="further",
    registered="2026-11-28",
    changes=(
        "2026-11-28: was at most 0.1 at one lag, for plain networks; now within 0.1 of zero there "
        "and within 0.05 on average over 15 lags.",
    ),
    stand_ins=stand_ins(
        measure_residual, {**RIVALS, **DETACHED}, must_fail=("no norm", "layer norm")
    ),
)

PLAIN = Claim(
    name="balduzzi-plain",
    sentence="Batch norm keeps the gradients of plain deep networks from shattering.",
    citation=f"{_CITATION}, who do not say so: it is often said of batch norm",
    setup=lambda setting: f"{_setup(setting)} {_DEPTH} layers.",
    formula="autocorrelation at lag 1 of dy/dx over the points, with less without",
    measure=measure_plain,
    group="slogan",
    registered="2026-11-28",
    changes=(
        "2026-11-28: was at least 0, which no norm at all reaches; now at least 0.05 more than "
        "without.",
    ),
    stand_ins=stand_ins(measure_plain, must_fail=("no norm",)),
)
