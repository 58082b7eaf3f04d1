"""Daneshmand et al. 2021: batch norm makes examples orthogonal, if it subtracts no mean."""

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
    near,
)
from experiments.papers.claims.daneshmand_2020 import random_layer, through
from experiments.papers.tools.spread import spread_each
from jbn import Standard, Uncentered, Variant
from jbn.diagnostics import mean_absolute_cosine, orthogonality_gap

_CITATION = (
    "Daneshmand, Joudaki & Bach 2021, Batch Normalization Orthogonalizes Representations in Deep "
    "Random Networks, NeurIPS, arXiv:2106.03970"
)
_EXAMPLES = 4
_WIDTHS = (16, 32, 64, 128, 256)
_DEPTH = 60
_PLATEAU = slice(20, 60)
_DECAY = slice(0, 8)
_ALIKE = 0.99
_PAIR_WIDTH = 32


def alike(key: jax.Array, examples: int, width: int) -> jax.Array:
    """Random examples, any two of which have the cosine 0.99."""
    common, own = jnp.split(jax.random.normal(key, (examples + 1, width)), [1])
    return jnp.sqrt(_ALIKE) * common + jnp.sqrt(1 - _ALIKE) * own


def gaps(variant: Variant | None, relu: bool, width: int, seed: jax.Array) -> jax.Array:
    """Orthogonality gap of four examples after each random layer; alike as they come in."""
    keys = jax.random.split(jax.random.key(seed), _DEPTH + 1)
    h = alike(keys[0], _EXAMPLES, width)
    return through(random_layer(variant, relu, width), orthogonality_gap, 1, h, keys[1:])


def pair_cosines(variant: Variant | None, seed: jax.Array) -> jax.Array:
    """|cosine| of two examples after each random linear layer.

    Before batch norm they are nearly one, otherwise nearly orthogonal: each starts at the end that
    it should leave.
    """
    keys = jax.random.split(jax.random.key(seed), _DEPTH + 1)
    if variant is None:
        h = jax.random.normal(keys[0], (2, _PAIR_WIDTH))
    else:
        h = alike(keys[0], 2, _PAIR_WIDTH)
    layer = random_layer(variant, False, _PAIR_WIDTH)
    return through(layer, mean_absolute_cosine, 1, h, keys[1:])


def _gaps(setting: Setting, variant: Variant, relu: bool) -> tuple[tuple[int, ...], np.ndarray]:
    """Widths, and gaps `(widths, seeds, layers)`."""
    seeds = setting.seeds(full=24, quick=12)
    widths = (16, 64, 256) if setting.quick else _WIDTHS
    runs = {width: partial(gaps, variant, relu, width) for width in widths}
    return widths, np.stack([*spread_each(runs, seeds).values()])


def _slopes(widths: tuple[int, ...], gaps: np.ndarray) -> np.ndarray:
    """Of the log of the plateau over the log of the width, per seed."""
    return np.polyfit(np.log(widths), np.log(gaps[..., _PLATEAU].mean(axis=-1)), 1)[0]


def _plots(widths: tuple[int, ...], every: dict[str, np.ndarray]) -> list[Plot]:
    layers = np.arange(1, _DEPTH + 1)
    first = next(iter(every.values()))
    lines = [Line(name, widths, g[..., _PLATEAU].mean(axis=-1).T) for name, g in every.items()]
    law = first[0, :, _PLATEAU].mean() * np.sqrt(widths[0] / np.array(widths))
    lines.append(Line("1/square root", widths, law, expected=True))
    over_layers = [Line(f"{name}, width {widths[-1]}", layers, g[-1]) for name, g in every.items()]
    return [
        Plot(
            "Four examples that come in alike", "layer", "orthogonality gap", over_layers, log="y"
        ),
        Plot("Mean over layers 21 to 60", "width", "orthogonality gap", lines, log="xy"),
    ]


def measure_gap(setting: Setting) -> Outcome:
    """The gap with uncentred batch norm over layers and widths, and cosines beside none."""
    widths, gap = _gaps(setting, Uncentered(), relu=False)
    seeds = setting.seeds(full=48, quick=24)
    pairs = {
        "with": partial(pair_cosines, Uncentered()),
        "without": partial(pair_cosines, None),
    }
    cosines = {
        name: found[:, -20:].mean(axis=1) for name, found in spread_each(pairs, seeds).items()
    }
    layers = np.arange(_DEPTH)
    decay = np.polyfit(layers[_DECAY], np.log(gap[-1].T[_DECAY]), 1)[0]
    pair = "mean |cosine| of two examples in layers 41 to 60, width 32"
    checks = [
        Check(
            "with: exponent of the gap over the width",
            _slopes(widths, gap),
            near(-0.5, absolute=0.05),
            "theory",
        ),
        Check(
            "with: factor per layer on the gap in layers 1 to 8, width 256",
            np.exp(decay),
            at_most(0.8),
            "regression",
        ),
        Check(f"with, alike at first: {pair}", cosines["with"], at_most(0.2), "regression"),
        Check(f"without, random at first: {pair}", cosines["without"], at_least(0.5), "regression"),
    ]
    remarks = ["The paper finds an exponent of -0.46; its bound has -1/2."]
    return Outcome(checks, _plots(widths, {"with batch norm": gap}), remarks)


def measure_centred(setting: Setting) -> Outcome:
    """The same gap where the mean is subtracted, and with ReLU besides."""
    every = {}
    widths: tuple[int, ...] = ()
    for name, relu in (("linear", False), ("ReLU", True)):
        widths, every[name] = _gaps(setting, Standard(), relu)
    checks = [
        Check(
            f"{name}, mean subtracted: exponent of the gap over the width",
            _slopes(widths, gap),
            near(-0.5, absolute=0.05),
            "theory",
        )
        for name, gap in every.items()
    ]
    floor = 1 / np.sqrt(_EXAMPLES * (_EXAMPLES - 1))
    found = " and ".join(
        f"{gap[-1, :, _PLATEAU].mean():.3f} ({name})" for name, gap in every.items()
    )
    remarks = [
        f"Centred over the batch, four examples have cosines of -1/3 on average and a gap of at "
        f"least {floor:.3f}, at any width; measured at width {widths[-1]}: {found}.",
    ]
    return Outcome(checks, _plots(widths, every), remarks)


_SETUP = (
    "Random layers H <- phi(BN(H W)), W ~ N(0, 1/width), no epsilon; four examples of cosine 0.99, "
    "60 layers, widths 16 to 256, 24 seeds."
)

GAP = Claim(
    name="daneshmand-orthogonal",
    sentence="Random linear layers with batch norm (no mean) bring all examples of a batch to "
    "right angles, the closer the wider the network; without it they align.",
    citation=f"{_CITATION}, theorem 1",
    setup=f"{_SETUP} Linear. Pairs: width 32, 48 seeds.",
    formula="gap V = |H Hᵀ/|H|² - I/n|, proportional to 1/sqrt(width) after many layers",
    measure=measure_gap,
)

CENTRED = Claim(
    name="daneshmand-centred",
    sentence="Batch norm as it is used, with the mean subtracted, makes the examples of a batch "
    "orthogonal.",
    citation=f"{_CITATION}; the paper's theorem is for batch norm without mean and without "
    "nonlinearity",
    setup=_SETUP,
    formula="gap V = |H Hᵀ/|H|² - I/n|, at least 1/sqrt(n (n - 1)) with centred linear layers",
    measure=measure_centred,
    group="contested",
)
