"""Yang et al. 2019: gradients explode through batch norm, at a rate that theory gives."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, near
from experiments.papers.tools.deep import factor_per_layer, log_square
from experiments.papers.tools.spread import spread_each
from experiments.papers.tools.stand_ins import DETACHED, RIVALS, as_layer, stand_ins
from jbn import Standard

CITATION = (
    "Yang, Pennington, Rao, Sohl-Dickstein & Schoenholz 2019, A Mean Field Theory of Batch "
    "Normalization, ICLR, arXiv:1902.08129"
)
DEPTH = 30
FITTED = slice(4, 26)  # the first layers approach the fixed point, the last feel the loss
Activation = Callable[[jax.Array], jax.Array]
ACTIVATIONS: dict[str, Activation] = {"ReLU": jax.nn.relu, "linear": lambda z: z}


def relu_rate(batch_size: int) -> float:
    """Theorem 8: growth of |dL/dz|^2 per layer of ReLU, as gradients go back."""
    c = -1 / (batch_size - 1)
    slope = (np.pi - np.arccos(c)) / np.pi
    return float(
        (slope + batch_size - 1) / ((batch_size - 3) * (1 - relu_cosine(batch_size)))
        - 1 / (batch_size - 3)
    )


def relu_cosine(batch_size: int) -> float:
    """Theorem 5: cosine of two examples after many layers of ReLU."""
    c = -1 / (batch_size - 1)
    return float((np.sqrt(1 - c**2) + (np.pi - np.arccos(c)) * c) / np.pi)


def linear_rate(batch_size: int) -> float:
    """Growth of |dL/dz|^2 per layer without a nonlinearity."""
    return (batch_size - 2) / (batch_size - 3)


def deep_pass(
    activation: Activation, batch_size: int, width: int, seed: jax.Array, norm: Any = Standard()
) -> jax.Array:
    """log |dL/dz|² of each layer, z before the norm: random layers, and a random gradient back.

    Layers are h <- activation(norm(h W)), `norm` as in `tools.stand_ins`.
    """
    key = jax.random.key(seed)
    x, cotangent = jax.random.normal(key, (2, batch_size, width))
    keys = jax.random.split(jax.random.fold_in(key, 1), DEPTH)
    hidden = as_layer(norm, activation)

    def layer(h: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        key, added = inputs
        kernel = jax.random.normal(key, (width, width)) / np.sqrt(width)
        return activation(hidden(h, kernel, added)), None

    def loss(added: jax.Array) -> jax.Array:
        return jnp.vdot(cotangent, jax.lax.scan(layer, x, (keys, added))[0])

    # The gradient at zeros added to every z is that at z.
    return log_square(jax.grad(loss)(jnp.zeros((DEPTH, batch_size, width))))


def _width(setting: Setting) -> int:
    return setting.pick(full=512, quick=256)


def _batch_sizes(setting: Setting) -> tuple[int, ...]:
    return (8, 16) if setting.quick else (8, 16, 32, 64)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=24, quick=10)


def measure(setting: Setting, norm: Any = Standard()) -> Outcome:
    """The slope of log |dL/dz|² over layers, beside theory."""
    theory = {"ReLU": relu_rate, "linear": linear_rate}
    # Of the logarithm of the rate. That of linear layers is small, and differs among networks.
    tolerance = {"ReLU": setting.pick(5, 10) / 100, "linear": setting.pick(20, 30) / 100}
    width, seeds = _width(setting), _seeds(setting)
    passes = spread_each(
        {
            (name, batch_size): partial(deep_pass, ACTIVATIONS[name], batch_size, width, norm=norm)
            for name in theory
            for batch_size in _batch_sizes(setting)
        },
        seeds,
    )
    layers = np.arange(1, DEPTH + 1)
    checks = []
    lines: dict[str, list[Line]] = {name: [] for name in theory}
    for (name, batch_size), logs in passes.items():
        expected = theory[name](batch_size)
        checks.append(
            Check(
                f"{name}, batch size {batch_size}: logarithm of the factor per layer",
                np.log(factor_per_layer(logs, FITTED)),
                near(float(np.log(expected)), relative=tolerance[name]),
                "theory",
            )
        )
        # As seen from the layer where the fit begins.
        start = FITTED.start
        grown = np.exp(logs - logs[:, start : start + 1])
        law = expected ** -(layers - layers[start]).astype(float)
        lines[name] += [
            Line(f"batch size {batch_size}", layers, grown),
            Line(f"batch size {batch_size}, theory", layers, law, expected=True),
        ]
    label = f"|dL/dz|² against layer {FITTED.start + 1}"
    plots = [Plot(name, "layer", label, found, log="y") for name, found in lines.items()]
    remarks = [
        "The growth is that of the squared gradient: the gradient itself grows by the root of the "
        "factor.",
        "Theory is for infinite width. Large linear batches are the hard case: their factor is "
        f"{linear_rate(64):.4f} for 64 examples, and the networks differ by a sixth of its "
        "logarithm.",
    ]
    return Outcome(checks, plots, remarks)


def describe(setting: Setting) -> str:
    """The deep random networks and the fit."""
    sizes = _batch_sizes(setting)
    return (
        f"Width {_width(setting)}, {DEPTH} layers h = phi(BN(h W)), W ~ N(0, 1/width), standard "
        f"normal input and gradient of the output, no epsilon, gamma 1, beta 0; batch sizes "
        f"{sizes[0]} to {sizes[-1]}; {len(_seeds(setting))} seeds. Factor: exponential of the "
        f"slope of log |dL/dz|² over layers {FITTED.start + 1} to {FITTED.stop}."
    )


RATES = Claim(
    name="yang-gradients",
    sentence="Batch norm makes gradients grow by a constant factor per layer, about pi/(pi-1) for "
    "ReLU in large batches.",
    citation=f"{CITATION}, theorems 7 to 9",
    setup=describe,
    formula="ReLU: (J'(c) + B - 1)/((B - 3)(1 - J(c))) - 1/(B - 3), c = -1/(B - 1), "
    "J(c) = (sqrt(1 - c²) + (pi - arccos c) c)/pi; linear: (B - 2)/(B - 3)",
    measure=measure,
    registered="2026-11-28",
    changes=(
        "2026-11-28: was within 1.5 % of the factor (3 % when quick), which in linear batches of "
        "64 was wider than the effect; now within 5 % of the logarithm for ReLU and 20 % for "
        "linear layers (10 and 30 % when quick, in batches of 8 and 16), chosen from the spread "
        "among networks of other seeds (5000 to 5023).",
    ),
    stand_ins=stand_ins(measure, {**RIVALS, **DETACHED}, must_fail=("no norm", *DETACHED)),
)
