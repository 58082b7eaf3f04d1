"""Nachum et al. 2024: one cluster and an odd example, in deep random networks."""

from collections.abc import Callable, Mapping
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
    at_least,
    at_most,
)
from experiments.papers.claims.lubana_2021 import cosines
from experiments.papers.tools.spread import spread_each
from experiments.papers.tools.stand_ins import NORMS, as_layer, stand_ins
from jbn import Standard

_EXAMPLES = 10
_WIDTH = 100
_LOOKS = 40


class Geometry(NamedTuple):
    """Of a batch, after some of the layers: the oddest example is the least like the others."""

    odd: jax.Array
    """Mean |cosine| of the oddest example and the others."""
    others: jax.Array
    """Mean cosine of the others among themselves."""
    length: jax.Array
    """Norm of the oddest, over the mean norm of the others."""


def geometry(h: jax.Array) -> Geometry:
    """That of the rows of `h`."""
    n = h.shape[0]
    cosine = cosines(h) * (1 - jnp.eye(n))
    odd = jnp.argmin(jnp.sum(cosine, axis=1))
    rest = jnp.ones(n).at[odd].set(0)
    among = jnp.sum(cosine * rest[:, None] * rest[None]) / ((n - 1) * (n - 2))
    lengths = jnp.linalg.norm(h, axis=1)
    mean = jnp.sum(lengths * rest) / (n - 1)
    return Geometry(jnp.sum(jnp.abs(cosine[odd])) / (n - 1), among, lengths[odd] / mean)


def recentre(z: jax.Array) -> jax.Array:
    """Every unit without its mean over the batch, and all of them in one unit of length."""
    z = z - jnp.mean(z, axis=0, keepdims=True)
    return z / jnp.sqrt(jnp.mean(jnp.square(z)))


def recentring(h: jax.Array, kernel: jax.Array) -> jax.Array:
    """A layer with recentring alone, before its activation."""
    return recentre(h @ kernel)


def deep_pass(hidden: Callable[..., jax.Array], depth: int, seed: jax.Array) -> Geometry:
    """A Gaussian batch through random layers h <- ReLU(hidden(h, W)), at `_LOOKS` layers."""
    start, weights = jax.random.split(jax.random.key(seed))

    def layer(h: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        kernel = jax.random.normal(key, (_WIDTH, _WIDTH)) * np.sqrt(2 / _WIDTH)
        return jax.nn.relu(hidden(h, kernel)), None

    def look(h: jax.Array, keys: jax.Array) -> tuple[jax.Array, Geometry]:
        h, _ = jax.lax.scan(layer, h, keys)
        return h, geometry(h)

    keys = jax.random.split(weights, depth).reshape(_LOOKS, depth // _LOOKS)
    return jax.lax.scan(look, jax.random.normal(start, (_EXAMPLES, _WIDTH)), keys)[1]


def _depth(setting: Setting) -> int:
    return setting.pick(full=1000, quick=400)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=12, quick=8)


def measure_all(setting: Setting, hidden: Mapping[str, Callable[..., jax.Array]]) -> Outcome:
    """How far the oddest example is from the others, in the last quarter of the layers."""
    layers = _depth(setting) // _LOOKS * np.arange(1, _LOOKS + 1)
    runs = {name: partial(deep_pass, layer, _depth(setting)) for name, layer in hidden.items()}
    checks, plots = [], []
    for name, seen in spread_each(runs, _seeds(setting)).items():
        end = Geometry(*(array[:, -_LOOKS // 4 :].mean(axis=1) for array in seen))
        checks += [
            Check(f"{name}: {quantity}", measured, allowed, "published")
            for quantity, measured, allowed in (
                ("mean cosine of two examples of the cluster", end.others, at_least(0.5)),
                ("mean |cosine| of the odd example and the others", end.odd, at_most(0.1)),
                ("length of the odd example over the others' mean", end.length, at_least(2.0)),
            )
        ]
        lines = [
            Line("within the others", layers, seen.others),
            Line("with the oddest (absolute)", layers, seen.odd),
        ]
        plots.append(Plot(f"The oddest example, {name}", "layer", "mean cosine", lines))
    return Outcome(checks, plots)


def measure(setting: Setting) -> Outcome:
    """With recentring alone, and with the whole of batch norm."""
    with_norm = as_layer(Standard(), jax.nn.relu)
    outcome = measure_all(setting, {"recentring": recentring, "batch norm": with_norm})
    remark = (
        "The odd example is there with recentring alone, in one unit of length for all units. Once "
        "batch norm rescales each unit by itself it is not, and the limit of Yang et al. 2019 "
        "holds (claim yang-fixed-point)."
    )
    return outcome._replace(remarks=[remark])


def measure_with(setting: Setting, norm: Any) -> Outcome:
    """With a norm in the place of both."""
    return measure_all(setting, {"in their place": as_layer(norm, jax.nn.relu)})


def _describe(setting: Setting) -> str:
    return (
        f"{_EXAMPLES} Gaussian examples through {_depth(setting)} random layers "
        f"h <- ReLU(f(h W)) of {_WIDTH} units, f recentring over the batch or batch norm, "
        f"W ~ N(0, 2/width), scale 1, bias 0, no epsilon; mean over {_LOOKS // 4} looks at the "
        f"last quarter; {len(_seeds(setting))} seeds. The odd example is that whose cosines with "
        "the others have the smallest sum."
    )


ODD = Claim(
    name="nachum-odd",
    sentence="Where batch norm's recentring comes before ReLU, a deep random network makes of a "
    "batch one cluster and one odd example, far from it and orthogonal to it.",
    citation="Nachum, Bondaschi, Gastpar & Khina 2024, Batch Normalization Decomposed, "
    "arXiv:2412.02843, abstract: with recentring and a non-linearity",
    setup=_describe,
    formula="cos(h_i, h_j), mean over pairs, and |h_odd|/mean |h_i|",
    measure=measure,
    group="contested",
    registered="2026-11-28",
    changes=[
        "2026-11-28: was batch norm alone; recentring alone too, which is what the abstract speaks "
        "of."
    ],
    stand_ins=stand_ins(measure_with, must_fail=NORMS),
)
