"""Brock et al. 2021: scaled weight standardisation keeps signals as batch norm does."""

from collections.abc import Callable
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
    at_most,
    near,
)
from experiments.papers.tools.in_weights import standardized
from experiments.papers.tools.spread import spread

_EXAMPLES = 128
_DEPTH = 60
_LOOKS = (1, 10, 60)
GAIN = float(np.sqrt(2 / (1 - 1 / np.pi)))
"""1/std of ReLU(z), z standard normal."""


class Signals(NamedTuple):
    """Of z = h W in each layer, mean over units."""

    variance: jax.Array
    """Over the batch."""
    square_mean: jax.Array
    """Square of the mean over the batch."""


Weights = Callable[[jax.Array], jax.Array]
"""Makes the kernel `(inputs, units)` of standard normal numbers."""


def gaussian(w: jax.Array) -> jax.Array:
    return w / np.sqrt(w.shape[0])


def deep_pass(weights: Weights, gain: float, width: int, seed: jax.Array) -> Signals:
    """Standard normal z through random layers z <- gain ReLU(z) W."""
    start, rest = jax.random.split(jax.random.key(seed))

    def layer(z: jax.Array, key: jax.Array) -> tuple[jax.Array, Signals]:
        kernel = weights(jax.random.normal(key, (width, width)))
        z = gain * jax.nn.relu(z) @ kernel
        return z, Signals(jnp.mean(jnp.var(z, axis=0)), jnp.mean(jnp.square(jnp.mean(z, axis=0))))

    z = jax.random.normal(start, (_EXAMPLES, width))
    return jax.lax.scan(layer, z, jax.random.split(rest, _DEPTH))[1]


def gaussian_variance(layer: int) -> float:
    """Variance over a large batch after so many layers of He's weights: 1 - J(J(.. J(0)))."""
    c = 0.0
    for _ in range(layer):
        c = (np.sqrt(1 - c**2) + (np.pi - np.arccos(c)) * c) / np.pi
    return float(1 - c)


def _width(setting: Setting) -> int:
    return setting.pick(full=1024, quick=512)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=10, quick=8)


def measure_with(setting: Setting, weights: Weights, gain: float) -> Outcome:
    """Variance over the batch and square of its mean, in layers 1, 10 and 60."""
    seeds = _seeds(setting)
    seen, plain = (
        spread(partial(deep_pass, each, by, _width(setting)), seeds)
        for each, by in ((weights, gain), (gaussian, np.sqrt(2)))
    )
    unit = 1 - 1 / _EXAMPLES  # of independent examples, as var counts
    checks = []
    for look in _LOOKS:
        at = f"layer {look}"
        variance, square = (array[:, look - 1] for array in seen)
        allowed = near(unit, absolute=0.1)
        checks.append(Check(f"{at}: variance over the batch", variance, allowed, "theory"))
        checks.append(Check(f"{at}: square of the batch's mean", square, at_most(0.05), "theory"))
    for look in _LOOKS[:2]:
        expected = unit * gaussian_variance(look)
        name = f"Gaussian weights, layer {look}: variance over the batch"
        allowed = near(expected, relative=0.2)
        checks.append(Check(name, plain.variance[:, look - 1], allowed, "theory", control=True))
    layers = np.arange(1, _DEPTH + 1)
    theory = [unit * gaussian_variance(layer) for layer in layers.tolist()]
    plots = [
        Plot(
            "Over the batch",
            "layer",
            "variance, mean over units",
            [
                Line("scaled weight standardisation", layers, seen.variance),
                Line("expected", layers, np.full(_DEPTH, unit), expected=True),
                Line("no norm", layers, plain.variance),
                Line("no norm, theory", layers, theory, expected=True),
            ],
            log="y",
        ),
        Plot(
            "The mean of the batch",
            "layer",
            "square of the mean, mean over units",
            [
                Line("scaled weight standardisation", layers, seen.square_mean),
                Line("no norm", layers, plain.square_mean),
            ],
            log="y",
        ),
    ]
    return Outcome(checks, plots)


def _describe(setting: Setting) -> str:
    return (
        f"{_EXAMPLES} standard normal examples through {_DEPTH} random layers z <- gain ReLU(z) W "
        f"of {_width(setting)} units, gain {GAIN:.4g}, W of mean 0 and mean square 1/width for "
        f"each unit; against W ~ N(0, 1/width) and gain sqrt(2); {len(_seeds(setting))} seeds."
    )


def _with(weights: Weights, gain: float) -> Any:
    return lambda setting: measure_with(setting, weights, gain)


STANDARDISED = Claim(
    name="brock-weight-standardisation",
    sentence="Scaled weight standardisation keeps what batch norm keeps of a random network's "
    "signals, without a batch: variance 1 and mean 0 in every unit at every depth.",
    citation="Brock, De & Smith 2021, Characterizing Signal Propagation to Close the Performance "
    "Gap in Unnormalized ResNets, ICLR, arXiv:2101.08692, section 4",
    setup=_describe,
    formula="W_ij = (W_ij - mean_i)/(std_i sqrt(inputs)), gain sqrt(2/(1 - 1/pi)) for ReLU",
    measure=_with(standardized, GAIN),
    group="further",
    registered="2026-11-28",
    changes=[
        "2026-11-28: was 512 units (quick: 256); now twice as many, since theory is of wide "
        "layers: a narrow network loses some of its variance on the way."
    ],
    stand_ins=[
        StandIn("Gaussian weights, He's gain", _with(gaussian, float(np.sqrt(2))), must_fail=True),
        StandIn("Gaussian weights, scaled gain", _with(gaussian, GAIN), must_fail=True),
        StandIn(
            "weight standardisation, He's gain",
            _with(standardized, float(np.sqrt(2))),
            must_fail=True,
        ),
    ],
)
