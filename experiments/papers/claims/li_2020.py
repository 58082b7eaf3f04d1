"""Li & Arora 2020: weight decay is an exponentially growing learning rate, exactly."""

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
from experiments.papers.tools.digits import Images, digits, draw, initial, loss, network
from experiments.papers.tools.mlp import in_training
from experiments.papers.tools.spread import spread
from experiments.papers.tools.stand_ins import DETACHED, stand_ins
from jbn import Standard

_WIDTHS = (100, 100)
_BATCH_SIZE = 64
_PROBE = 64  # images whose scores are compared
_LEARNING_RATE = 0.1
_WEIGHT_DECAY = 5e-3
_EPSILON = 1e-3  # of a batch norm whose weights do have a scale


class Twins(NamedTuple):
    """After each step of three trainings on the same batches."""

    apart: jax.Array
    """Largest difference between class scores with decay and with a growing rate without it."""
    constant: jax.Array
    """The same, of training without decay at a constant rate."""
    square: jax.Array
    """|w|² of the hidden layers: with decay, and with the growing rate."""


def growth(step: Any, learning_rate: float, weight_decay: float) -> Any:
    """What the rate of step 0, 1, .. is multiplied by in the place of decay.

    `w <- (1 - eta lambda) w - eta g(w)` is followed by `v = w (1 - eta lambda)^-t`, since `g(c w)`
    is `g(w)/c`.
    """
    return (1 - learning_rate * weight_decay) ** (-2 * step - 1)


def train(norm: Any, epsilon: float | None, steps: int, images: Images, seed: jax.Array) -> Twins:
    """SGD in the precision of `images`; decay and its substitute act on the hidden layers alone."""
    model = network(_WIDTHS, norm)
    model = model if epsilon is None else model.clone(epsilon=epsilon)
    weights_key, batches_key = jax.random.split(jax.random.key(seed))
    params = jax.tree.map(lambda p: p.astype(images.x.dtype), initial(model, weights_key))
    probe = jnp.asarray(images.x[:_PROBE])

    def scores(params: Any) -> jax.Array:
        # Statistics of the probe; what training sees.
        norms = {n: p for n, p in params.items() if n.startswith("norm_")}
        empty = {
            n: {"mean": jnp.zeros_like(p["scale"]), "var": jnp.ones_like(p["scale"])}
            for n, p in norms.items()
        }
        return in_training(model, params, empty, probe)[0]

    def moved(params: Any, batch: Images, rate: Any, decay: float) -> Any:
        gradient, _ = jax.grad(lambda p: loss(model, p, batch), has_aux=True)(params)

        def one(name: str) -> Any:
            hidden = name.startswith("hidden_")
            keep = 1 - _LEARNING_RATE * decay if hidden else 1.0
            eta = rate if hidden else _LEARNING_RATE
            return jax.tree.map(lambda p, g: keep * p - eta * g, params[name], gradient[name])

        return {name: one(name) for name in params}

    def step(three: tuple[Any, Any, Any], t: jax.Array) -> tuple[Any, Twins]:
        batch = draw(images, jax.random.fold_in(batches_key, t), _BATCH_SIZE)
        rate = _LEARNING_RATE * growth(t, _LEARNING_RATE, _WEIGHT_DECAY)
        rates = (_LEARNING_RATE, _WEIGHT_DECAY), (rate, 0.0), (_LEARNING_RATE, 0.0)
        three = tuple(moved(p, batch, *each) for p, each in zip(three, rates))  # type: ignore[assignment]
        decayed, growing, constant = map(scores, three)
        squares = jnp.stack([_square(params) for params in three[:2]])
        return three, Twins(_apart(decayed, growing), _apart(decayed, constant), squares)

    numbers = jnp.arange(steps).astype(images.x.dtype)
    return jax.lax.scan(step, (params, params, params), numbers)[1]


def _apart(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(a - b))


def _square(params: Any) -> jax.Array:
    hidden = [params[name] for name in params if name.startswith("hidden_")]
    return jnp.sum(jnp.stack([jnp.sum(jnp.square(p)) for p in jax.tree.leaves(hidden)]))


def _steps(setting: Setting) -> int:
    return setting.pick(full=1000, quick=500)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=4, quick=3)


def measure_with(setting: Setting, norm: Any, epsilon: float | None = None) -> Outcome:
    """How far scores of the trainings come apart, in float64."""
    seeds, steps = _seeds(setting), _steps(setting)
    images = digits()
    with jax.enable_x64(True):
        precise = Images(images.x.astype(np.float64), images.labels)
        twins = spread(partial(train, norm, epsilon, steps), seeds, given=[precise])
    largest = f"largest difference of any class score over {steps} steps"
    checks = [
        Check(f"growing rate: {largest}", twins.apart.max(axis=1), at_most(1e-9), "theory"),
        Check(
            f"constant rate, no decay: {largest}",
            twins.constant.max(axis=1),
            at_least(0.1),
            "regression",
            control=True,
        ),
    ]
    t = np.arange(1, steps + 1)
    predicted = twins.square[..., 0].mean(axis=0) * growth(t, _LEARNING_RATE, _WEIGHT_DECAY)
    predicted = predicted * (1 - _LEARNING_RATE * _WEIGHT_DECAY)
    plots = [
        Plot(
            "One training, at two rates",
            "step",
            "largest difference of a class score",
            [
                Line("growing rate, no decay", t, twins.apart),
                Line("constant rate, no decay", t, twins.constant),
            ],
            log="y",
        ),
        Plot(
            "Weights grow in place of the rate's decay",
            "step",
            "|w|² of the hidden layers",
            [
                Line("decay", t, twins.square[..., 0]),
                Line("growing rate, no decay", t, twins.square[..., 1]),
                Line("growing rate, theory", t, predicted, expected=True),
            ],
            log="y",
        ),
    ]
    times = growth(steps, _LEARNING_RATE, _WEIGHT_DECAY)
    remarks = [
        f"Over these {steps} steps the rate grows {times:.3g} times. In a longer training rounding "
        "errors grow, as in any two trainings that differ in a last digit."
    ]
    return Outcome(checks, plots, remarks)


def _describe(setting: Setting) -> str:
    widths = "-".join(map(str, (64, *_WIDTHS, 10)))
    return (
        f"Digits, {widths} ReLU with batch norm, no epsilon, float64; {_steps(setting)} steps of "
        f"SGD, batch size {_BATCH_SIZE}, eta {_LEARNING_RATE:g}, lambda {_WEIGHT_DECAY:g} on the "
        "hidden layers, against a twin without decay and with the growing rate there; scores of "
        f"{_PROBE} images by their own statistics; {len(_seeds(setting))} seeds."
    )


EXPONENTIAL = Claim(
    name="li-exponential-rate",
    sentence="Before batch norm, weight decay is the same training as a learning rate that grows "
    "exponentially, exactly.",
    citation="Li & Arora 2020, An Exponential Learning Rate Schedule for Deep Learning, ICLR, "
    "arXiv:1910.07454, theorem 2.1 (there with momentum; without it the rate is as below)",
    setup=_describe,
    formula="eta_t = eta (1 - eta lambda)^(-2 t - 1), t = 0, 1, ..; the same function at every "
    "step, weights (1 - eta lambda)^-t times larger",
    measure=lambda setting: measure_with(setting, Standard()),
    group="further",
    registered="2026-11-28",
    stand_ins=[
        *stand_ins(measure_with, must_fail=("no norm", "dynamic tanh")),
        *stand_ins(measure_with, DETACHED),
        StandIn(
            f"batch norm, epsilon {_EPSILON:g}",
            lambda setting: measure_with(setting, Standard(), _EPSILON),
            must_fail=True,
        ),
    ],
)
