"""Daneshmand et al. 2020: without batch norm, depth leaves one direction of all that came in."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, at_least, at_most
from experiments.papers.tools.spread import spread
from experiments.papers.tools.stand_ins import as_layer, stand_ins
from jbn import Standard, Uncentered
from jbn.diagnostics import effective_rank, participation_ratio

_WIDTHS = (8, 16, 32, 64, 128)
_WIDTH = 32
_DEPTH = 400
_EVERY = 10
_AVERAGED = slice(40, 120)  # layers of r(H)
_BATCH_NORMS = (Uncentered(), Standard())


Layer = Callable[[jax.Array, jax.Array], jax.Array]


def random_layer(norm: Any, relu: bool, width: int) -> Layer:
    """(H, key) -> phi(norm(H W)), rescaled: no rank depends on the scale, which may explode."""
    activation = jax.nn.relu if relu else lambda z: z
    hidden = as_layer(norm, activation)

    def layer(h: jax.Array, key: jax.Array) -> jax.Array:
        h = activation(hidden(h, jax.random.normal(key, (width, width)) / jnp.sqrt(width)))
        return h / jnp.max(jnp.abs(h))

    return layer


def through(
    layer: Layer,
    measure: Callable[[jax.Array], jax.Array],
    every: int,
    h: jax.Array,
    keys: jax.Array,
) -> jax.Array:
    """`measure` of the activations after each `every` layers."""

    def block(h: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        h, _ = jax.lax.scan(lambda h, key: (layer(h, key), None), h, keys)
        return h, measure(h)

    return jax.lax.scan(block, h, keys.reshape(-1, every))[1]


def random_pass(
    norm: Any,
    relu: bool,
    measure: Callable[[jax.Array], jax.Array],
    width: int,
    depth: int,
    every: int,
    seed: jax.Array,
) -> jax.Array:
    """`measure` of a random batch as large as the width, after each `every` random layers."""
    keys = jax.random.split(jax.random.key(seed), depth + 1)
    h = jax.random.normal(keys[0], (width, width))
    return through(random_layer(norm, relu, width), measure, every, h, keys[1:])


def _effective_ranks(seeds: np.ndarray, norm: Any, relu: bool) -> np.ndarray:
    rank = partial(effective_rank, squared=True)
    run = partial(random_pass, norm, relu, rank, _WIDTH, _DEPTH, _EVERY)
    return spread(run, seeds)


def _participation(seeds: np.ndarray, norm: Any, width: int) -> np.ndarray:
    run = partial(random_pass, norm, False, participation_ratio, width, _AVERAGED.stop, 1)
    return spread(run, seeds)[:, _AVERAGED].mean(axis=1)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=12, quick=8)


def _widths(setting: Setting) -> tuple[int, ...]:
    return _WIDTHS[: setting.pick(full=len(_WIDTHS), quick=3)]


def measure_ranks(setting: Setting, norms: tuple[Any, Any] = _BATCH_NORMS) -> Outcome:
    """Effective rank over depth, and how r(H) grows with the width.

    `norms` are batch norm without mean and with it, or what stands in their places.
    """
    seeds = _seeds(setting)
    uncentred, centred = norms
    nets = (
        ("linear, no norm", None, False),
        ("linear, batch norm without mean", uncentred, False),
        ("linear, batch norm", centred, False),
        ("ReLU, no norm", None, True),
        ("ReLU, batch norm", centred, True),
    )
    checks, lines = [], []
    for name, norm, relu in nets[: setting.pick(full=len(nets), quick=2)]:
        rank = _effective_ranks(seeds, norm, relu)
        lines.append(Line(name, np.arange(_EVERY, _DEPTH + 1, _EVERY), rank))
        if name.endswith("no norm"):
            checks.append(
                Check(
                    f"{name}: effective rank less 1 after {_DEPTH} layers, power of ten",
                    _power_of_ten(rank[:, -1] - 1),
                    at_most(float(np.log10(0.2))),
                    "regression",
                    control=True,
                )
            )
        else:
            quantity = f"{name}: effective rank after {_DEPTH} layers"
            checks.append(Check(quantity, rank[:, -1], at_least(4.5), "regression"))
    widths = _widths(setting)
    grown = np.stack([_participation(seeds, uncentred, width) for width in widths], axis=1)
    slopes = np.polyfit(np.log(widths), np.log(grown).T, 1)[0]
    quantity = f"{nets[1][0]}: exponent of r(H) over the width"
    checks.append(Check(quantity, slopes, at_least(0.5), "theory"))
    law = grown.mean(axis=0)[0] * np.sqrt(np.array(widths) / widths[0])
    plots = [
        Plot(
            f"Activations of {_WIDTH} examples, width {_WIDTH}",
            "layer",
            "effective rank",
            lines,
            log="x",
        ),
        Plot(
            f"Mean over layers {_AVERAGED.start + 1} to {_AVERAGED.stop}",
            "width",
            "r(H)",
            [
                Line("batch norm without mean", widths, grown),
                Line("square root", widths, law, expected=True),
            ],
            log="xy",
        ),
    ]
    return Outcome(checks, plots)


def _power_of_ten(values: np.ndarray) -> np.ndarray:
    """Logarithm to base 10; a rank of one has rounding in place of an excess."""
    return np.log10(np.maximum(values, np.finfo(np.float32).eps))


def _describe(setting: Setting) -> str:
    widths, seeds = _widths(setting), len(_seeds(setting))
    return (
        f"Width {_WIDTH}, {_WIDTH} standard normal examples, {_DEPTH} layers H <- phi(BN(H W)), W "
        f"~ N(0, 1/width), no epsilon; r(H) over widths {widths[0]} to {widths[-1]}, as many "
        f"examples, mean over layers {_AVERAGED.start + 1} to {_AVERAGED.stop}; {seeds} "
        "seeds. Rescaled after every layer, which no rank notices."
    )


RANK = Claim(
    name="daneshmand-rank",
    sentence="Batch norm keeps the rank of a deep random network at least at the order of the "
    "square root of its width; without it the rank collapses to one.",
    citation="Daneshmand, Kohler, Bach, Hofmann & Lucchi 2020, Batch Normalization Provably Avoids "
    "Rank Collapse for Randomly Initialised Deep Networks, NeurIPS, arXiv:2003.01652, abstract",
    setup=_describe,
    formula="effective rank = exp(-sum p log p), p = s²/sum s² of the singular values s; "
    "r(H) = (tr M)²/|M|², M = H Hᵀ, grows at least as sqrt(width) with batch norm",
    measure=measure_ranks,
    registered="2026-11-22",
    changes=(
        "2026-11-28: without norm the rank itself was at most 1.2, with an interval that reached "
        "below one, where no rank is; now the power of ten of its excess over one, at the same "
        "limit.",
    ),
    stand_ins=stand_ins(
        lambda setting, norm: measure_ranks(setting, (norm, norm)),
        must_fail=("no norm", "layer norm"),
    ),
)
