"""Meterez et al. 2024: with orthogonal weights, gradients need not explode through batch norm."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, near
from experiments.papers.tools.deep import NO_EPSILON, log_square, signals
from experiments.papers.tools.spread import spread_each
from jbn import Uncentered, batch_norm, init
from jbn.diagnostics import isometry_gap

_CITATION = (
    "Meterez, Joudaki, Orabona, Immer, Rätsch & Daneshmand 2024, Towards Training Without Depth "
    "Limits: Batch Normalization Without Gradient Explosion, ICLR, arXiv:2310.02012"
)
_WIDTH = 32
# The gradient grows until the examples are an isometry; at this width that takes 200 layers.
_DEPTHS = (200, 400)
_SHORT_DEPTHS = (40, 80)
_BATCH_SIZES = (8, 16, 24)


class _Pass(NamedTuple):
    gradient: jax.Array
    """log |dL/dz|^2 of each layer."""
    gap: jax.Array
    """Isometry gap of what goes into every tenth."""


def deep_pass(orthogonal: bool, relu: bool, batch_size: int, depth: int, seed: jax.Array) -> _Pass:
    """Examples through random layers h <- phi(BN(h W)), BN without mean, and a gradient back."""
    width = _WIDTH
    kernels = (
        jax.nn.initializers.orthogonal() if orthogonal else jax.nn.initializers.normal(width**-0.5)
    )

    def layer(h: jax.Array, key: jax.Array, added: jax.Array) -> jax.Array:
        z = h @ kernels(key, (width, width)) + added
        y, _ = batch_norm(z, *init(width), variant=Uncentered(), epsilon=NO_EPSILON)
        return jax.nn.relu(y) if relu else y

    x_key, key = jax.random.split(jax.random.key(seed))
    seen = signals(layer, depth, jax.random.normal(x_key, (batch_size, width)), key)
    return _Pass(log_square(seen.gradient), jax.lax.map(isometry_gap, seen.h[::10]))


def gaussian_rate(batch_size: int) -> float:
    """Growth of |dL/dz|^2 per linear layer of Gaussian weights, without centring."""
    return (batch_size - 1) / (batch_size - 2)


def _growth(shallow: _Pass, deep: _Pass) -> np.ndarray:
    """Factor on the first layer's |dL/dz|^2 for each layer that one network has more."""
    more = deep.gradient.shape[1] - shallow.gradient.shape[1]
    return np.exp((deep.gradient[:, 0] - shallow.gradient[:, 0]) / more)


def measure_orthogonal(setting: Setting) -> Outcome:
    """Orthogonal beside Gaussian weights, as many examples as units."""
    seeds = setting.seeds(full=64, quick=32)
    slack = 0.006 if setting.quick else 0.004
    expected = {"orthogonal": 1.0, "Gaussian": gaussian_rate(_WIDTH)}
    checks, gradients, gaps = [], [], []
    for name, factor in expected.items():
        runs = {
            depth: partial(deep_pass, name == "orthogonal", False, _WIDTH, depth)
            for depth in _DEPTHS
        }
        shallow, deep = spread_each(runs, seeds).values()
        # A tenth of what Gaussian weights have.
        absolute = slack if name == "orthogonal" else 0.015
        quantity = f"{name}: factor per layer on the first layer's |dL/dz|²"
        checks.append(
            Check(quantity, _growth(shallow, deep), near(factor, absolute=absolute), "theory")
        )
        layers = np.arange(1, _DEPTHS[-1] + 1)
        gradients.append(Line(name, layers, np.exp(deep.gradient - deep.gradient[:, -1:])))
        if name == "orthogonal":  # Gaussian weights only widen it
            gaps.append(Line(name, layers[::10], deep.gap))
    plots = [
        Plot(
            f"{_DEPTHS[-1]} linear layers",
            "layer",
            "|dL/dz|² against the last layer",
            gradients,
            log="y",
        ),
        Plot(f"{_DEPTHS[-1]} linear layers", "layer", "isometry gap", gaps, log="y"),
    ]
    return Outcome(checks, plots)


def measure_elsewhere(setting: Setting) -> Outcome:
    """Orthogonal weights with fewer examples than units, and with ReLU."""
    seeds = setting.seeds(full=32, quick=16)
    batch_sizes = _BATCH_SIZES[: setting.pick(full=len(_BATCH_SIZES), quick=1)]

    def growth(relu: bool, batch_size: int) -> np.ndarray:
        runs = {d: partial(deep_pass, True, relu, batch_size, d) for d in _SHORT_DEPTHS}
        return _growth(*spread_each(runs, seeds).values())

    linear = {f"linear, {n} examples": growth(False, n) for n in batch_sizes}
    relu = {f"ReLU, {_WIDTH} examples": growth(True, _WIDTH)}
    allowed = near(1.0, absolute=0.01)
    checks = [
        Check(f"{name}: factor per layer on the first layer's |dL/dz|²", factor, allowed, "theory")
        for name, factor in (linear | relu).items()
    ]
    gaussian = np.array([gaussian_rate(n) for n in batch_sizes])
    plot = Plot(
        f"Orthogonal linear layers of {_WIDTH} units",
        "examples",
        "factor per layer",
        [
            Line("measured", batch_sizes, np.stack([*linear.values()], axis=1)),
            Line("Gaussian weights, theory", batch_sizes, gaussian, expected=True),
        ],
    )
    return Outcome(checks, [plot])


_SETUP = (
    "Random layers h <- BN(h W) of 32 units, BN without mean or epsilon, standard normal input and "
    "gradient of the output; 64 seeds. Factor: from the first layer's gradient in two networks, "
    "one of which is"
)

ORTHOGONAL = Claim(
    name="meterez-orthogonal",
    sentence="In a linear network with orthogonal weights, and as many examples as units, batch "
    "norm does not make gradients explode.",
    citation=_CITATION,
    setup=f"{_SETUP} 200 layers deeper than the other's 200. 32 examples.",
    formula="orthogonal: factor 1; Gaussian: (n - 1)/(n - 2), n examples",
    measure=measure_orthogonal,
    group="further",
)

ELSEWHERE = Claim(
    name="meterez-elsewhere",
    sentence="Orthogonal weights stop the explosion of gradients through batch norm, whatever the "
    "batch size and the nonlinearity.",
    citation=f"{_CITATION}, who claim it for as many examples as units",
    setup=f"{_SETUP} 40 layers deeper than the other's 40. 8 to 24 examples, or 32 with ReLU.",
    formula="factor per layer 1, if it were so",
    measure=measure_elsewhere,
    group="contested",
)
