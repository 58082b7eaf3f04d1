"""Schoenholz et al. 2017: without batch norm the variance of the weights decides over gradients."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, near
from experiments.papers.tools.deep import factor_per_layer, log_square, signals
from experiments.papers.tools.spread import combinations, spread

_WIDTH = 300
_DEPTH = 40
_BATCH_SIZE = 16
_FITTED = slice(10, 36)
_RELU = (1.5, 2.0, 2.5)
_TANH = (0.81, 2.25)


class _Pass(NamedTuple):
    """Logarithms of squared norms, of each layer."""

    dz: jax.Array
    dw: jax.Array


def deep_pass(
    activation: Callable[[jax.Array], jax.Array], seed: jax.Array, variance: jax.Array
) -> _Pass:
    """A batch through random layers h <- activation(h W), and a random gradient back."""

    def layer(h: jax.Array, key: jax.Array, added: jax.Array) -> jax.Array:
        kernel = jax.random.normal(key, (_WIDTH, _WIDTH)) * jnp.sqrt(variance / _WIDTH)
        return activation(h @ kernel + added)

    x_key, key = jax.random.split(jax.random.key(seed))
    seen = signals(layer, _DEPTH, jax.random.normal(x_key, (_BATCH_SIZE, _WIDTH)), key)
    products = jnp.einsum("lbi,lbj->lij", seen.h, seen.gradient)
    return _Pass(log_square(seen.gradient), log_square(products))


def tanh_chi(variance: float) -> float:
    """sigma_w² E[tanh'(sqrt(q) z)²] at the fixed point q = sigma_w² E[tanh(sqrt(q) z)²]."""
    z, weights = np.polynomial.hermite_e.hermegauss(61)
    weights = weights / weights.sum()
    q = 1.0
    for _ in range(2000):
        q = variance * np.sum(weights * np.tanh(np.sqrt(q) * z) ** 2)
    slope = 1 - np.tanh(np.sqrt(q) * z) ** 2
    return float(variance * np.sum(weights * slope**2))


def measure(setting: Setting) -> Outcome:
    """The factor per layer on |dL/dz|², beside theory, and for ReLU that on |dL/dW|²."""
    seeds = setting.seeds(full=24, quick=12)
    nets = (("ReLU", jax.nn.relu, _RELU), ("tanh", jnp.tanh, _TANH))
    tolerance = 0.04 if setting.quick else 0.03
    checks, plots = [], []
    layers = np.arange(1, _DEPTH + 1)
    for name, activation, variances in nets:
        rows = combinations(seeds, np.array(variances, np.float32))
        seen = jax.tree.map(
            lambda a: a.reshape(len(seeds), -1, _DEPTH),
            spread(partial(deep_pass, activation), *rows),
        )
        lines = []
        for i, variance in enumerate(variances):
            dz = seen.dz[:, i]
            chi = variance / 2 if name == "ReLU" else tanh_chi(variance)
            factor = factor_per_layer(dz, _FITTED)
            at = f"{name}, sigma_w² {variance:g}: factor per layer on"
            checks.append(Check(f"{at} |dL/dz|²", factor, near(chi, relative=tolerance), "theory"))
            if name == "ReLU":
                weights = factor_per_layer(seen.dw[:, i], _FITTED)
                allowed = near(1.0, relative=tolerance)
                checks.append(Check(f"{at} |dL/dW|²", weights, allowed, "theory"))
            grown = np.exp(dz - dz[:, -1:])
            lines.append(Line(f"sigma_w² {variance:g}", layers, grown))
            law = chi ** (_DEPTH - layers).astype(float)
            lines.append(Line(f"sigma_w² {variance:g}, theory", layers, law, expected=True))
        plots.append(Plot(name, "layer", "|dL/dz|² against the last layer", lines, log="y"))
    remarks = [
        "Of ReLU the gradient of the weights shows nothing: activations shrink as gradients "
        "grow. With batch norm both grow alike."
    ]
    return Outcome(checks, plots, remarks)


CHI = Claim(
    name="schoenholz-chi",
    sentence="Without batch norm gradients grow or vanish by chi_1 per layer, which the variance "
    "of the weights can set to one.",
    citation="Schoenholz, Gilmer, Ganguli & Sohl-Dickstein 2017, Deep Information Propagation, "
    "ICLR, arXiv:1611.01232",
    setup="Width 300, 40 random layers h <- phi(h W), W ~ N(0, sigma_w²/width), 16 standard normal "
    "examples, random gradient of the output; slope over layers 11 to 36; 24 seeds.",
    formula="chi_1 = sigma_w² E[phi'(sqrt(q) z)²] at the fixed point of q; ReLU: sigma_w²/2",
    measure=measure,
    group="further",
)
