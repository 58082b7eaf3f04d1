"""Yang et al. 2019: gradients explode through batch norm, at a rate that theory gives.

One pass through deep random networks measures both the gradients and the fixed point of the
forward pass.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, near, once
from experiments.papers.tools.deep import NO_EPSILON, factor_per_layer, log_square
from experiments.papers.tools.spread import spread
from jbn import batch_norm, init

CITATION = (
    "Yang, Pennington, Rao, Sohl-Dickstein & Schoenholz 2019, A Mean Field Theory of Batch "
    "Normalization, ICLR, arXiv:1902.08129"
)
_DEPTH = 30
FITTED = slice(4, 26)  # the first layers approach the fixed point, the last feel the loss
_BATCH_SIZES = (8, 16, 32, 64)
_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "ReLU": jax.nn.relu,
    "linear": lambda z: z,
}


class _Pass(NamedTuple):
    """Of each layer of one random network."""

    gradient: jax.Array
    """log |dL/dz|^2, z before batch norm."""
    second_moment: jax.Array
    """Mean square of the activations."""
    cosine: jax.Array
    """Between two examples, mean over pairs."""


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
    activation: Callable[[jax.Array], jax.Array], batch_size: int, width: int, seed: jax.Array
) -> _Pass:
    """A batch through random layers h <- activation(BN(h W)), and a random gradient back."""
    key = jax.random.key(seed)
    x, cotangent = jax.random.normal(key, (2, batch_size, width))
    keys = jax.random.split(jax.random.fold_in(key, 1), _DEPTH)

    def layer(h: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, Any]:
        key, added = inputs
        kernel = jax.random.normal(key, (width, width)) / np.sqrt(width)
        y, _ = batch_norm(h @ kernel + added, *init(width), epsilon=NO_EPSILON)
        h = activation(y)
        return h, (jnp.mean(jnp.square(h)), _mean_cosine(h))

    def loss(added: jax.Array) -> tuple[jax.Array, Any]:
        h, seen = jax.lax.scan(layer, x, (keys, added))
        return jnp.vdot(cotangent, h), seen

    # The gradient at zeros added to every z is that at z.
    gradient, (second_moment, cosine) = jax.grad(loss, has_aux=True)(
        jnp.zeros((_DEPTH, batch_size, width))
    )
    return _Pass(log_square(gradient), second_moment, cosine)


def _mean_cosine(h: jax.Array) -> jax.Array:
    unit = h / jnp.linalg.norm(h, axis=1, keepdims=True)
    n = h.shape[0]
    return (jnp.sum(unit @ unit.T) - n) / (n * (n - 1))


@once
def _passes(setting: Setting) -> dict[str, dict[int, _Pass]]:
    """By activation and batch size; arrays `(seeds, layers)`."""
    width = setting.pick(full=512, quick=256)

    def of(name: str, batch_size: int) -> _Pass:
        # The smaller the batch, the more its networks differ.
        seeds = setting.seeds(full=24 if batch_size < 32 else 12, quick=8)
        return spread(partial(deep_pass, _ACTIVATIONS[name], batch_size, width), seeds)

    batch_sizes = (16, 32) if setting.quick else _BATCH_SIZES
    return {name: {size: of(name, size) for size in batch_sizes} for name in _ACTIVATIONS}


def measure_rates(setting: Setting) -> Outcome:
    """The slope of log |dL/dz|^2 over layers, beside theory."""
    theory = {"ReLU": relu_rate, "linear": linear_rate}
    tolerance = 0.03 if setting.quick else 0.015
    checks, plots = [], []
    for name, rate in theory.items():
        lines = []
        for batch_size, seen in _passes(setting)[name].items():
            logs = seen.gradient
            layers = np.arange(1, _DEPTH + 1)
            expected = rate(batch_size)
            checks.append(
                Check(
                    f"{name}, batch size {batch_size}: factor per layer",
                    factor_per_layer(logs, FITTED),
                    near(expected, relative=tolerance),
                    "theory",
                )
            )
            # As seen from the layer where the fit begins.
            start = FITTED.start
            grown = np.exp(logs - logs[:, start : start + 1])
            lines.append(Line(f"B = {batch_size}", layers, grown))
            law = expected ** -(layers - layers[start]).astype(float)
            lines.append(Line(f"B = {batch_size}, theory", layers, law, expected=True))
        plots.append(Plot(name, "layer", "|dL/dz|² against layer 5", lines, log="y"))
    return Outcome(checks, plots)


def measure_fixed_point(setting: Setting) -> Outcome:
    """Second moment and cosine of the activations in the last layer, beside theory."""
    passes, slack = _passes(setting), 2 if setting.quick else 1
    checks, cosines = [], []
    for batch_size, seen in passes["ReLU"].items():
        at = f"ReLU, batch size {batch_size}"
        checks.append(
            Check(
                f"{at}: E[h²]",
                seen.second_moment[:, -1],
                near(0.5, absolute=0.01 * slack),
                "theory",
            )
        )
        expected = relu_cosine(batch_size)
        # A finite width adds, and never takes away.
        allowed = near(expected)._replace(
            low=expected - 0.004 * slack, high=expected + 0.015 * slack
        )
        checks.append(Check(f"{at}: cosine", seen.cosine[:, -1], allowed, "theory"))
        cosines.append(seen.cosine[:, -1])
    for batch_size, seen in passes["linear"].items():
        allowed = near(-1 / (batch_size - 1), absolute=0.002 * slack)
        at = f"linear, batch size {batch_size}"
        checks.append(Check(f"{at}: cosine", seen.cosine[:, -1], allowed, "theory"))
    batch_sizes = [*passes["ReLU"]]
    seeds = min(map(len, cosines))
    expected = np.array([relu_cosine(batch_size) for batch_size in batch_sizes])
    plot = Plot(
        "Two examples after 30 layers of ReLU",
        "batch size",
        "cosine",
        [
            Line("measured", batch_sizes, np.stack([c[:seeds] for c in cosines], axis=1)),
            Line("theory", batch_sizes, expected, expected=True),
        ],
        log="x",
    )
    return Outcome(checks, [plot])


_SETUP = (
    "Width 512, 30 layers h = phi(BN(h W)), W ~ N(0, 1/width), standard normal input and gradient "
    "of the output, no epsilon, gamma 1, beta 0; 24 seeds (12 from batch size 32)."
)

RATES = Claim(
    name="yang-gradients",
    sentence="Batch norm makes gradients grow by a constant factor per layer, about pi/(pi-1) for "
    "ReLU in large batches.",
    citation=f"{CITATION}, theorems 7 to 9",
    setup=f"{_SETUP} Factor: exponential of the slope of log |dL/dz|² over layers 5 to 26.",
    formula="ReLU: (J'(c) + B - 1)/((B - 3)(1 - J(c))) - 1/(B - 3), c = -1/(B - 1), "
    "J(c) = (sqrt(1 - c²) + (pi - arccos c) c)/pi; linear: (B - 2)/(B - 3)",
    measure=measure_rates,
)

FIXED_POINT = Claim(
    name="yang-fixed-point",
    sentence="Deep networks with batch norm forget their input: any two examples of a batch end "
    "at the same angle, whatever they were.",
    citation=f"{CITATION}, theorem 5",
    setup=_SETUP,
    formula="ReLU: E[h²] = 1/2, cosine J(-1/(B - 1)); linear: cosine -1/(B - 1)",
    measure=measure_fixed_point,
    group="further",
)
