"""Meterez et al. 2024: with orthogonal weights, gradients need not explode through batch norm."""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.papers.claim import (
    Check,
    Claim,
    Line,
    Outcome,
    Plot,
    Setting,
    StandIn,
    at_most,
    near,
)
from experiments.papers.tools.deep import log_square, signals
from experiments.papers.tools.spread import spread_each
from experiments.papers.tools.stand_ins import DETACHED, RIVALS, as_layer, stand_ins
from jbn import Standard, Uncentered
from jbn.diagnostics import isometry_gap

_CITATION = (
    "Meterez, Joudaki, Orabona, Immer, Rätsch & Daneshmand 2024, Towards Training Without Depth "
    "Limits: Batch Normalization Without Gradient Explosion, ICLR, arXiv:2310.02012"
)
WITHOUT_MEAN = Uncentered()
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


def deep_pass(
    orthogonal: bool,
    relu: bool,
    batch_size: int,
    depth: int,
    seed: jax.Array,
    norm: Any = WITHOUT_MEAN,
) -> _Pass:
    """Examples through random layers h <- phi(norm(h W)), and a random gradient back."""
    width, activation = _WIDTH, jax.nn.relu if relu else lambda z: z
    hidden = as_layer(norm, activation)
    kernels = (
        jax.nn.initializers.orthogonal() if orthogonal else jax.nn.initializers.normal(width**-0.5)
    )

    def layer(h: jax.Array, key: jax.Array, added: jax.Array) -> jax.Array:
        return activation(hidden(h, kernels(key, (width, width)), added))

    x_key, key = jax.random.split(jax.random.key(seed))
    seen = signals(layer, depth, jax.random.normal(x_key, (batch_size, width)), key)
    return _Pass(log_square(seen.gradient), jax.lax.map(isometry_gap, seen.h[::10]))


def gaussian_rate(batch_size: int) -> float:
    """Growth of |dL/dz|^2 per linear layer of Gaussian weights, without centring."""
    return (batch_size - 1) / (batch_size - 2)


def _growth(shallow: _Pass, deep: _Pass) -> np.ndarray:
    """Logarithm of the first layer's |dL/dz|² for each layer that one network has more."""
    more = deep.gradient.shape[1] - shallow.gradient.shape[1]
    return np.asarray(deep.gradient[:, 0] - shallow.gradient[:, 0]) / more


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=64, quick=16)


_QUANTITY = "logarithm of the factor per layer on the first layer's |dL/dz|²"


def measure_orthogonal(setting: Setting, norm: Any = WITHOUT_MEAN) -> Outcome:
    """Orthogonal beside Gaussian weights, as many examples as units."""
    seeds = _seeds(setting)
    exploding = float(np.log(gaussian_rate(_WIDTH)))
    # A tenth of what Gaussian weights have, and a fifth when quick.
    slack = exploding * setting.pick(full=10, quick=20) / 100
    allowed = {
        "orthogonal": near(0.0, absolute=slack),
        "Gaussian": near(exploding, relative=0.4),
    }
    runs = {
        (name, depth): partial(deep_pass, name == "orthogonal", False, _WIDTH, depth, norm=norm)
        for name in allowed
        for depth in _DEPTHS
    }
    seen = spread_each(runs, seeds)
    layers = np.arange(1, _DEPTHS[-1] + 1)
    checks, gradients = [], []
    for name in allowed:
        shallow, deep = (seen[name, depth] for depth in _DEPTHS)
        growth = _growth(shallow, deep)
        checks.append(Check(f"{name}: {_QUANTITY}", growth, allowed[name], "theory"))
        gradients.append(Line(name, layers, np.exp(deep.gradient - deep.gradient[:, -1:])))
    gap = seen["orthogonal", _DEPTHS[-1]].gap  # Gaussian weights only widen it
    checks.append(
        Check(
            f"orthogonal: isometry gap of what goes into layer {layers[::10][-1]}",
            gap[:, -1],
            at_most(0.1),
            "theory",
        )
    )
    title = f"{_DEPTHS[-1]} linear layers"
    plots = [
        Plot(title, "layer", "|dL/dz|² against the last layer", gradients, log="y"),
        Plot(title, "layer", "isometry gap", [Line("orthogonal", layers[::10], gap)], log="y"),
    ]
    remarks = [
        f"The rate of Gaussian weights, {gaussian_rate(_WIDTH):.4f}, is that of infinite width: "
        f"with as many examples as units, {_WIDTH}, they grow faster than that, by "
        f"{np.exp(np.mean(checks[1].measured)):.4f} per layer.",
        "Without any norm orthogonal weights keep gradients as well; they do not make the examples "
        "orthogonal, which the isometry gap tells.",
    ]
    return Outcome(checks, plots, remarks)


def _few(setting: Setting) -> tuple[int, ...]:
    return _BATCH_SIZES[: setting.pick(full=len(_BATCH_SIZES), quick=1)]


def _seeds_elsewhere(setting: Setting) -> np.ndarray:
    return setting.seeds(full=32, quick=8)


def measure_elsewhere(
    setting: Setting, norm: Any = WITHOUT_MEAN, orthogonal: bool = True
) -> Outcome:
    """Orthogonal weights with fewer examples than units, and with ReLU."""
    batch_sizes = _few(setting)
    linear = {f"linear, {n} examples": (False, n) for n in batch_sizes}
    nets = linear | {f"ReLU, {_WIDTH} examples": (True, _WIDTH)}
    runs = {
        (name, depth): partial(deep_pass, orthogonal, *net, depth, norm=norm)
        for name, net in nets.items()
        for depth in _SHORT_DEPTHS
    }
    seen = spread_each(runs, _seeds_elsewhere(setting))
    growth = {name: _growth(*(seen[name, depth] for depth in _SHORT_DEPTHS)) for name in nets}
    allowed = near(0.0, absolute=0.01)
    checks = [
        Check(f"{name}: {_QUANTITY}", logs, allowed, "slogan") for name, logs in growth.items()
    ]
    gaussian = np.array([gaussian_rate(n) for n in batch_sizes])
    measured = np.exp(np.stack([growth[name] for name in linear], axis=1))
    plot = Plot(
        f"Orthogonal linear layers of {_WIDTH} units",
        "examples",
        "factor per layer",
        [
            Line("orthogonal", batch_sizes, measured),
            Line("Gaussian, theory", batch_sizes, gaussian, expected=True),
        ],
    )
    return Outcome(checks, [plot])


def _setup(depths: tuple[int, ...], examples: str, seeds: int) -> str:
    return (
        f"Random layers h <- BN(h W) of {_WIDTH} units, BN without mean or epsilon, standard "
        f"normal input and gradient of the output; {examples}; {seeds} seeds. Factor: from the "
        f"first layer's gradient in two networks, one of {depths[0]} layers and one of "
        f"{depths[1]}."
    )


def _describe_orthogonal(setting: Setting) -> str:
    return _setup(_DEPTHS, f"{_WIDTH} examples", len(_seeds(setting)))


def _describe_elsewhere(setting: Setting) -> str:
    few = ", ".join(map(str, _few(setting)))
    examples = f"{few} examples, or {_WIDTH} with ReLU"
    return _setup(_SHORT_DEPTHS, examples, len(_seeds_elsewhere(setting)))


_FAULTY = {"batch norm with mean": Standard(), **DETACHED}

ORTHOGONAL = Claim(
    name="meterez-orthogonal",
    sentence="In a linear network with orthogonal weights, and as many examples as units, batch "
    "norm does not make gradients explode.",
    citation=_CITATION,
    setup=_describe_orthogonal,
    formula="orthogonal: factor 1, isometry gap 0; Gaussian: (n - 1)/(n - 2), n examples, at "
    "infinite width",
    measure=measure_orthogonal,
    group="further",
    registered="2026-11-28",
    changes=(
        "2026-11-28: was within 0.004 (0.006 when quick) of the factor for orthogonal weights and "
        "0.015 for Gaussian ones; now by the logarithm, within a tenth (a fifth) of the explosion "
        "of Gaussian weights, which are allowed 40 %: theory has them at infinite width, and at "
        "this one they are known to exceed it. The isometry gap is new.",
    ),
    stand_ins=stand_ins(
        measure_orthogonal,
        {**RIVALS, **_FAULTY},
        must_fail=("no norm", "batch norm with mean"),
    ),
)

ELSEWHERE = Claim(
    name="meterez-elsewhere",
    sentence="Orthogonal weights stop the explosion of gradients through batch norm, whatever the "
    "batch size and the nonlinearity.",
    citation=f"{_CITATION}, who claim it for linear layers and as many examples as units",
    setup=_describe_elsewhere,
    formula="factor per layer 1, if it were so",
    measure=measure_elsewhere,
    group="slogan",
    registered="2026-11-28",
    changes=("2026-11-28: was within 0.01 of the factor; now of its logarithm.",),
    stand_ins=(
        *stand_ins(measure_elsewhere),
        StandIn(
            "Gaussian weights",
            lambda setting: measure_elsewhere(setting, orthogonal=False),
            must_fail=True,
        ),
    ),
)
