"""Cao et al. 2023: batch norm and gradient descent find equal margins, not the largest one."""

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
    at_least,
    at_most,
)
from experiments.papers.tools.deep import NO_EPSILON
from experiments.papers.tools.spread import spread_each
from experiments.papers.tools.stand_ins import RIVALS, as_function, stand_ins
from jbn import Affine, Detached, Standard, Uncentered, Variant, batch_norm, init

_EXAMPLES = 20
_INPUTS = 30
_LEARNING_RATE = 0.05
_INIT = 0.1


class _Params(NamedTuple):
    w: jax.Array
    """`(inputs, 1)`."""
    scale: jax.Array
    bias: jax.Array


Model = Callable[[_Params, jax.Array], jax.Array]
"""(params, x) -> scores `(examples,)`."""


def linear(params: _Params, x: jax.Array) -> jax.Array:
    """<w, x>."""
    return (x @ params.w)[:, 0]


def weight_normed(params: _Params, x: jax.Array) -> jax.Array:
    """gamma <w, x>/|w|: scale-free as with batch norm, and of one example."""
    return params.scale[0] * linear(params, x) / jnp.linalg.norm(params.w)


def batch_normed(variant: Variant, params: _Params, x: jax.Array) -> jax.Array:
    """Batch norm of <w, x>; uncentred, gamma <w, x>/sqrt(mean of <w, x>²) without a bias."""
    _, stats = init(1)
    bias = jnp.zeros_like(params.bias) if variant == Uncentered() else params.bias
    affine = Affine(params.scale, bias)
    scores, _ = batch_norm(x @ params.w, affine, stats, epsilon=NO_EPSILON, variant=variant)
    return scores[:, 0]


def normed(norm: Any, params: _Params, x: jax.Array) -> jax.Array:
    """Another norm of <w, x>, with scale and bias."""
    return params.scale * as_function(norm)(x @ params.w)[:, 0] + params.bias


def problem(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gaussian examples `(n, d)`, and as many labels of 1 as of -1: separable, since n < d."""
    x = jax.random.normal(key, (_EXAMPLES, _INPUTS), jnp.float64)
    return x, jnp.where(jnp.arange(_EXAMPLES) % 2 == 0, 1.0, -1.0)


def train(model: Model, ends: tuple[int, ...], seed: jax.Array) -> jax.Array:
    """Margins y f(x), over their mean, after so many steps of gradient descent each.

    Of the logistic loss, on all examples; `(len(ends), examples)`.
    """
    data, weights = jax.random.split(jax.random.key(seed))
    x, y = problem(data)
    w = _INIT * jax.random.normal(weights, (_INPUTS, 1), jnp.float64)
    params = _Params(w, jnp.ones(1, jnp.float64), jnp.zeros(1, jnp.float64))

    def loss(params: _Params) -> jax.Array:
        return jnp.mean(jax.nn.softplus(-y * model(params, x)))

    def step(_: Any, params: _Params) -> _Params:
        return jax.tree.map(lambda p, g: p - _LEARNING_RATE * g, params, jax.grad(loss)(params))

    found, begin = [], 0
    # One loop for all, whose length is data: one program.
    for end in ends:
        params = jax.lax.fori_loop(0, end - begin, step, params)
        margins = y * model(params, x)
        found.append(margins / jnp.mean(margins))
        begin = end
    return jnp.stack(found)


def largest_margin(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Margins of the hard-margin separator over their mean: those of its dual, by ascent."""
    gram = (x @ x.T) * np.outer(y, y)
    dual = np.zeros(len(y))
    for _ in range(2000):  # coordinate ascent of sum a - a G a/2, a >= 0
        for i in range(len(y)):
            dual[i] = max(0.0, dual[i] + (1 - gram[i] @ dual) / gram[i, i])
    margins = gram @ dual
    return margins / margins.mean()


def _ends(setting: Setting) -> tuple[int, ...]:
    return (10, 30, 100, 300, 1000, 3000, setting.pick(full=30_000, quick=10_000))


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=8, quick=5)


def measure_with(setting: Setting, model: Model) -> Outcome:
    """How margins differ after the last step, with the norm and without."""
    seeds, ends = _seeds(setting), _ends(setting)
    with jax.enable_x64(True):
        runs = {model: partial(train, model, ends), linear: partial(train, linear, ends)}
        margins = spread_each(runs, seeds)
        problems = [jax.device_get(problem(jax.random.split(jax.random.key(s))[0])) for s in seeds]
    normed, plain = (np.std(margins[each], axis=2) for each in (model, linear))
    hard = np.array([np.std(largest_margin(*each)) for each in problems])
    quantity = "standard deviation of the margins over their mean"
    at = f"{quantity}, {ends[-1]} steps"
    checks = [
        Check(at, normed[:, -1], at_most(1e-3), "theory"),
        Check(f"no norm: {at}", plain[:, -1], at_least(0.05), "regression", control=True),
        Check(f"largest margin: {quantity}", hard, at_least(0.05), "theory", control=True),
    ]
    lines = [
        Line("batch norm", ends, normed),
        Line("no norm", ends, plain),
        Line("largest margin", ends, np.full(len(ends), hard.mean()), expected=True),
    ]
    return Outcome(checks, [Plot("Margins", "step", quantity, lines, log="xy")])


def _describe(setting: Setting) -> str:
    return (
        f"{_EXAMPLES} Gaussian examples of {_INPUTS} numbers, as many of either label, drawn at "
        "random; a linear model, with the paper's batch norm (without centring, no epsilon) or "
        f"none, logistic loss, {_ends(setting)[-1]} steps of full-batch gradient descent at "
        f"rate {_LEARNING_RATE:g}, w from N(0, {_INIT:g}²), float64; {len(_seeds(setting))} seeds."
    )


def _with(model: Model) -> Callable[[Setting], Outcome]:
    return lambda setting: measure_with(setting, model)


MARGINS = Claim(
    name="cao-equal-margins",
    sentence="Gradient descent on a linear model with batch norm finds equal margins for all "
    "examples, and not the largest margin that it finds without.",
    citation="Cao, Zou, Li & Gu 2023, The Implicit Bias of Batch Normalization in Linear Models "
    "and Two-layer Linear Convolutional Neural Networks, COLT, arXiv:2306.11680, theorem 2.2",
    setup=_describe,
    formula="y_i f(x_i) equal for all i; f(x) = gamma <w, x>/sqrt(mean of <w, x_i>²)",
    measure=_with(partial(batch_normed, Uncentered())),
    group="further",
    registered="2026-11-28",
    changes=[
        "2026-11-28: was 50 inputs and 1000 steps; 30 and more, because of 50 inputs the largest "
        "margin is often an equal one itself, and tells nothing apart."
    ],
    stand_ins=[
        StandIn("no norm", _with(linear), must_fail=True),
        *stand_ins(
            lambda setting, norm: measure_with(setting, partial(normed, norm)),
            {name: norm for name, norm in RIVALS.items() if norm is not None},
        ),
        StandIn("weight norm", _with(weight_normed), must_fail=True),
        StandIn("batch norm, centred", _with(partial(batch_normed, Standard()))),
        StandIn("detached statistics", _with(partial(batch_normed, Detached()))),
    ],
)
