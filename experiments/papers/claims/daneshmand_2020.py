"""Daneshmand et al. 2020: without batch norm, depth leaves one direction of all that came in."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, at_least, at_most
from experiments.papers.tools.deep import NO_EPSILON
from experiments.papers.tools.spread import spread
from jbn import Standard, Uncentered, Variant, batch_norm, init
from jbn.diagnostics import effective_rank, participation_ratio

_WIDTHS = (8, 16, 32, 64, 128)
_WIDTH = 32
_DEPTH = 400
_EVERY = 10
_NETS = (
    ("linear without", None, False),
    ("linear, batch norm without mean", Uncentered(), False),
    ("linear, batch norm", Standard(), False),
    ("ReLU without", None, True),
    ("ReLU, batch norm", Standard(), True),
)


Layer = Callable[[jax.Array, jax.Array], jax.Array]


def random_layer(variant: Variant | None, relu: bool, width: int) -> Layer:
    """(H, key) -> phi(BN(H W)), rescaled: no rank depends on the scale, which may explode."""

    def layer(h: jax.Array, key: jax.Array) -> jax.Array:
        z = h @ jax.random.normal(key, (width, width)) / jnp.sqrt(width)
        if variant is not None:
            z, _ = batch_norm(z, *init(width), variant=variant, epsilon=NO_EPSILON)
        h = jax.nn.relu(z) if relu else z
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
    variant: Variant | None,
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
    return through(random_layer(variant, relu, width), measure, every, h, keys[1:])


def _effective_ranks(seeds: np.ndarray, variant: Variant | None, relu: bool) -> np.ndarray:
    rank = partial(effective_rank, squared=True)
    run = partial(random_pass, variant, relu, rank, _WIDTH, _DEPTH, _EVERY)
    return spread(run, seeds)


def _participation(seeds: np.ndarray, width: int) -> np.ndarray:
    run = partial(random_pass, Uncentered(), False, participation_ratio, width, 120, 1)
    return spread(run, seeds)[:, 40:].mean(axis=1)


def measure_ranks(setting: Setting) -> Outcome:
    """Effective rank over depth, and how r(H) grows with the width."""
    seeds = setting.seeds(full=12, quick=8)
    checks, lines = [], []
    for name, variant, relu in _NETS[: setting.pick(full=len(_NETS), quick=2)]:
        rank = _effective_ranks(seeds, variant, relu)
        lines.append(Line(name, np.arange(_EVERY, _DEPTH + 1, _EVERY), rank))
        allowed = at_most(1.2) if variant is None else at_least(4.5)
        quantity = f"{name}: effective rank after {_DEPTH} layers"
        checks.append(Check(quantity, rank[:, -1], allowed, "regression"))
    widths = _WIDTHS[: setting.pick(full=len(_WIDTHS), quick=3)]
    grown = np.stack([_participation(seeds, width) for width in widths], axis=1)
    slopes = np.polyfit(np.log(widths), np.log(grown).T, 1)[0]
    quantity = f"{_NETS[1][0]}: exponent of r(H) over the width"
    checks.append(Check(quantity, slopes, at_least(0.5), "theory"))
    law = grown.mean(axis=0)[0] * np.sqrt(np.array(widths) / widths[0])
    plots = [
        Plot("Activations of 32 examples, width 32", "layer", "effective rank", lines, log="x"),
        Plot(
            "Mean over layers 41 to 120",
            "width",
            "r(H)",
            [Line("measured", widths, grown), Line("square root", widths, law, expected=True)],
            log="xy",
        ),
    ]
    return Outcome(checks, plots)


RANK = Claim(
    name="daneshmand-rank",
    sentence="Batch norm keeps the rank of a deep random network at least at the order of the "
    "square root of its width; without it the rank collapses to one.",
    citation="Daneshmand, Kohler, Bach, Hofmann & Lucchi 2020, Batch Normalization Provably Avoids "
    "Rank Collapse for Randomly Initialised Deep Networks, NeurIPS, arXiv:2003.01652, abstract",
    setup="Width 32, 32 standard normal examples, 400 layers H <- phi(BN(H W)), W ~ N(0, "
    "1/width), no epsilon; r(H) over widths 8 to 128, as many examples, mean over layers 41 to "
    "120; 12 seeds. Rescaled after every layer, which no rank notices.",
    formula="effective rank = exp(-sum p log p), p = s²/sum s² of the singular values s; "
    "r(H) = (tr M)²/|M|², M = H Hᵀ, grows at least as sqrt(width) with batch norm",
    measure=measure_ranks,
)
