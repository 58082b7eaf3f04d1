"""Daneshmand et al. 2021: batch norm makes examples orthogonal, if it subtracts no mean."""

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
    at_most,
    near,
)
from experiments.papers.claims.daneshmand_2020 import random_layer, through
from experiments.papers.tools.spread import spread_each
from experiments.papers.tools.stand_ins import RIVALS, stand_ins
from jbn import Standard, Uncentered
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
_LAST = 20  # layers, of pairs
_NO_MEAN = Uncentered()


def alike(key: jax.Array, examples: int, width: int) -> jax.Array:
    """Random examples, any two of which have the cosine 0.99."""
    common, own = jnp.split(jax.random.normal(key, (examples + 1, width)), [1])
    return jnp.sqrt(_ALIKE) * common + jnp.sqrt(1 - _ALIKE) * own


def gaps(norm: Any, relu: bool, width: int, seed: jax.Array) -> jax.Array:
    """Orthogonality gap of four examples after each random layer; alike as they come in."""
    keys = jax.random.split(jax.random.key(seed), _DEPTH + 1)
    h = alike(keys[0], _EXAMPLES, width)
    return through(random_layer(norm, relu, width), orthogonality_gap, 1, h, keys[1:])


def pair_cosines(norm: Any, alike_at_first: bool, seed: jax.Array) -> jax.Array:
    """|cosine| of two examples after each random linear layer: nearly one at first, or random."""
    keys = jax.random.split(jax.random.key(seed), _DEPTH + 1)
    shape = 2, _PAIR_WIDTH
    h = alike(keys[0], *shape) if alike_at_first else jax.random.normal(keys[0], shape)
    layer = random_layer(norm, False, _PAIR_WIDTH)
    return through(layer, mean_absolute_cosine, 1, h, keys[1:])


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=24, quick=12)


def _pair_seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=48, quick=24)


def _widths(setting: Setting) -> tuple[int, ...]:
    return (16, 64, 256) if setting.quick else _WIDTHS


def _gaps(setting: Setting, norm: Any, relu: bool) -> tuple[tuple[int, ...], np.ndarray]:
    """Widths, and gaps `(widths, seeds, layers)`."""
    seeds, widths = _seeds(setting), _widths(setting)
    runs = {width: partial(gaps, norm, relu, width) for width in widths}
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
        Plot(
            f"Mean over layers {_PLATEAU.start + 1} to {_PLATEAU.stop}",
            "width",
            "orthogonality gap",
            lines,
            log="xy",
        ),
    ]


def measure_gap(setting: Setting, norm: Any = _NO_MEAN) -> Outcome:
    """The gap with uncentred batch norm over layers and widths, and cosines beside none."""
    widths, gap = _gaps(setting, norm, relu=False)
    pairs = {
        "batch norm": partial(pair_cosines, norm, True),
        "no norm": partial(pair_cosines, None, False),
    }
    cosines = {
        name: found[:, -_LAST:].mean(axis=1)
        for name, found in spread_each(pairs, _pair_seeds(setting)).items()
    }
    layers = np.arange(_DEPTH)
    decay = np.polyfit(layers[_DECAY], np.log(gap[-1].T[_DECAY]), 1)[0]
    pair = (
        f"mean |cosine| of two examples in layers {_DEPTH - _LAST + 1} to {_DEPTH}, width "
        f"{_PAIR_WIDTH}"
    )
    checks = [
        Check(
            "exponent of the gap over the width",
            _slopes(widths, gap),
            near(-0.5, absolute=0.05),
            "theory",
        ),
        Check(
            f"factor per layer on the gap in layers 1 to {_DECAY.stop}, width {widths[-1]}",
            np.exp(decay),
            at_most(0.8),
            "regression",
        ),
        Check(f"alike at first: {pair}", cosines["batch norm"], at_most(0.2), "regression"),
        Check(
            f"no norm, random at first: {pair}",
            cosines["no norm"],
            at_least(0.5),
            "regression",
            control=True,
        ),
    ]
    remarks = ["The paper finds an exponent of -0.46; its bound has -1/2."]
    return Outcome(checks, _plots(widths, {"batch norm": gap}), remarks)


def measure_centred(setting: Setting, norm: Any = Standard()) -> Outcome:
    """The same gap where the mean is subtracted, and with ReLU besides."""
    every = {}
    widths: tuple[int, ...] = ()
    for name, relu in (("linear", False), ("ReLU", True)):
        widths, every[name] = _gaps(setting, norm, relu)
    checks = [
        Check(
            f"{name}: exponent of the gap over the width",
            _slopes(widths, gap),
            near(-0.5, absolute=0.05),
            "slogan",
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


def _describe(setting: Setting) -> str:
    widths = _widths(setting)
    return (
        f"Random layers H <- phi(BN(H W)), W ~ N(0, 1/width), no epsilon; {_EXAMPLES} examples of "
        f"cosine {_ALIKE:g}, {_DEPTH} layers, widths {widths[0]} to {widths[-1]}, "
        f"{len(_seeds(setting))} seeds."
    )


def _describe_gap(setting: Setting) -> str:
    pairs = f"Pairs: width {_PAIR_WIDTH}, {len(_pair_seeds(setting))} seeds."
    return f"{_describe(setting)} Linear. {pairs}"


GAP = Claim(
    name="daneshmand-orthogonal",
    sentence="Random linear layers with batch norm (no mean) bring all examples of a batch to "
    "right angles, the closer the wider the network; without it they align.",
    citation=f"{_CITATION}, theorem 1",
    setup=_describe_gap,
    formula="gap V = |H Hᵀ/|H|² - I/n|, proportional to 1/sqrt(width) after many layers",
    measure=measure_gap,
    registered="2026-11-22",
    stand_ins=stand_ins(
        measure_gap,
        {**RIVALS, "batch norm with mean": Standard()},
        must_fail=("no norm", "layer norm", "batch norm with mean"),
    ),
)

CENTRED = Claim(
    name="daneshmand-centred",
    sentence="Batch norm as it is used, with the mean subtracted, makes the examples of a batch "
    "orthogonal.",
    citation=f"{_CITATION}; who do not say so: the paper's theorem is for batch norm without mean "
    "and without nonlinearity",
    setup=_describe,
    formula="gap V = |H Hᵀ/|H|² - I/n|, at least 1/sqrt(n (n - 1)) with centred linear layers",
    measure=measure_centred,
    group="slogan",
    registered="2026-11-22",
    stand_ins=stand_ins(
        measure_centred,
        {**RIVALS, "batch norm without mean": Uncentered()},
        must_fail=("no norm", "layer norm"),
    ),
)
