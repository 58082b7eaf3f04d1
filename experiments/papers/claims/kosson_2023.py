"""Kosson et al. 2023: AdamW settles to turn every neuron's weights by one angle per step."""

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
from experiments.papers.tools.digits import (
    Images,
    digits,
    draw,
    hidden_kernels,
    initial,
    loss,
    network,
    replace_hidden,
)
from experiments.papers.tools.spread import spread
from experiments.papers.tools.stand_ins import DETACHED, stand_ins
from jbn import Standard
from jbn.diagnostics import angular_update

_WIDTHS = (100, 100)
_BATCH_SIZE = 32
_B2 = 0.99
_EPSILON = 1e-12  # of Adam; gradients become small
_WINDOW = 100


class Rates(NamedTuple):
    learning_rate: float
    weight_decay: float
    momentum: float
    """Adam's beta_1."""

    def __str__(self) -> str:
        rate, decay, momentum = self
        return f"eta {rate:g}, lambda {decay:g}, beta_1 {momentum:g}"


_RATES = (Rates(3e-3, 1, 0.9), Rates(1e-3, 3, 0.9), Rates(3e-3, 1, 0.0), Rates(3e-3, 0.3, 0.9))


def equilibrium_angle(learning_rate: float, weight_decay: float, momentum: float) -> float:
    """The angle per step, in radians: `sqrt(2 eta lambda (1 - beta_1)/(1 + beta_1))`, table 2."""
    return float(np.sqrt(2 * learning_rate * weight_decay * (1 - momentum) / (1 + momentum)))


def train(
    norm: Any,
    decoupled: bool,
    windows: int,
    images: Images,
    seed: jax.Array,
    learning_rate: jax.Array,
    weight_decay: jax.Array,
    momentum: jax.Array,
) -> jax.Array:
    """Mean square angle per step of each hidden neuron: `(windows, neurons)`.

    Only hidden kernels decay: as in AdamW, or (not `decoupled`) through the gradient that Adam
    normalises.
    """
    model = network(_WIDTHS, norm)
    weights_key, batches_key = jax.random.split(jax.random.key(seed))
    params = initial(model, weights_key)
    zero = jax.tree.map(jnp.zeros_like, params)

    def decayed(gradient: Any, params: Any) -> Any:
        pairs = zip(hidden_kernels(gradient), hidden_kernels(params), strict=True)
        return replace_hidden(gradient, [g + weight_decay * w for g, w in pairs])

    def adam(moments: tuple[Any, Any], gradient: Any, t: jax.Array) -> tuple[Any, Any]:
        first, second = moments
        first = jax.tree.map(lambda m, g: momentum * m + (1 - momentum) * g, first, gradient)
        second = jax.tree.map(lambda v, g: _B2 * v + (1 - _B2) * g * g, second, gradient)
        steps = t.astype(jnp.float32) + 1

        def update(m: jax.Array, v: jax.Array) -> jax.Array:
            return m / (1 - momentum**steps) / (jnp.sqrt(v / (1 - _B2**steps)) + _EPSILON)

        return (first, second), jax.tree.map(update, first, second)

    def step(state: tuple[Any, Any], t: jax.Array) -> tuple[Any, jax.Array]:
        params, moments = state
        batch = draw(images, jax.random.fold_in(batches_key, t), _BATCH_SIZE)
        gradient, _ = jax.grad(lambda p: loss(model, p, batch), has_aux=True)(params)
        moments, update = adam(moments, gradient if decoupled else decayed(gradient, params), t)
        update = decayed(update, params) if decoupled else update
        moved = jax.tree.map(lambda p, u: p - learning_rate * u, params, update)
        angles = angular_update(hidden_kernels(params), hidden_kernels(moved), per_neuron=True)
        return (moved, moments), jnp.square(jnp.concatenate(angles))

    def window(state: tuple[Any, Any], first: jax.Array) -> tuple[Any, jax.Array]:
        state, squares = jax.lax.scan(step, state, first + jnp.arange(_WINDOW))
        return state, jnp.mean(squares, axis=0)

    starts = _WINDOW * jnp.arange(windows)
    return jax.lax.scan(window, (params, (zero, zero)), starts)[1]


def _steps(setting: Setting) -> tuple[int, int]:
    """All, and the last ones, which are looked at."""
    return setting.pick(full=6000, quick=2000), setting.pick(full=3000, quick=1000)


def _rates(setting: Setting) -> tuple[Rates, ...]:
    return _RATES[: setting.pick(full=len(_RATES), quick=1)]


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=3, quick=3)


def measure_with(setting: Setting, norm: Any, decoupled: bool = True) -> Outcome:
    """The root mean square angle per step of the neurons at the end, and how they differ."""
    seeds, every = _seeds(setting), _rates(setting)
    windows, settled = (steps // _WINDOW for steps in _steps(setting))
    columns = np.repeat(np.array(every, np.float32), len(seeds), axis=0).T
    rows = np.tile(seeds, len(every)), *columns
    squares = spread(partial(train, norm, decoupled, windows), *rows, given=[digits()])
    squares = squares.reshape(len(every), len(seeds), windows, -1)

    ends = _WINDOW * np.arange(1, windows + 1)
    checks, lines = [], []
    for rates, square in zip(every, squares):
        expected = equilibrium_angle(*rates)
        neurons = np.sqrt(square[:, -settled:].mean(axis=1))
        angle = np.sqrt(np.square(neurons).mean(axis=1))
        allowed = near(expected, relative=0.05)
        checks.append(Check(f"{rates}: angle per step, radians", angle, allowed, "theory"))
        checks.append(
            Check(
                f"{rates}: deviation of the neurons' angles, over their mean",
                neurons.std(axis=1) / neurons.mean(axis=1),
                at_most(0.06),
                "regression",
            )
        )
        lines.append(Line(str(rates), ends, np.sqrt(square.mean(axis=2))))
        lines.append(Line(f"{rates}, theory", ends, np.full(windows, expected), expected=True))
    plot = Plot("The angle settles", "step", "angle per step, radians", lines, log="y")
    return Outcome(checks, [plot])


def _describe(setting: Setting) -> str:
    steps, settled = _steps(setting)
    widths = "-".join(map(str, (64, *_WIDTHS, 10)))
    return (
        f"Digits, {widths} ReLU with batch norm, {steps} steps of AdamW, beta_2 {_B2:g}, batch "
        f"size {_BATCH_SIZE}, decay of the two hidden layers only; angle of each of "
        f"{sum(_WIDTHS)} neurons, root mean square over the last {settled} steps; "
        f"{len(_seeds(setting))} seeds."
    )


ANGLE = Claim(
    name="kosson-adamw-angle",
    sentence="AdamW with weight decay settles to turn the weights of every neuron before batch "
    "norm by the same angle per step, which rate, decay and beta_1 give.",
    citation="Kosson, Messmer & Jaggi 2023, Rotational Equilibrium: How Weight Decay Balances "
    "Learning Across Neural Networks, ICML 2024, arXiv:2305.17212, table 1",
    setup=_describe,
    formula="angle = sqrt(2 eta lambda (1 - beta_1)/(1 + beta_1)), eta the learning rate, lambda "
    "the decay (w <- w - eta (u + lambda w), u Adam's update)",
    measure=lambda setting: measure_with(setting, Standard()),
    group="further",
    registered="2026-11-28",
    stand_ins=[
        *stand_ins(measure_with),
        *stand_ins(measure_with, DETACHED),
        StandIn(
            "batch norm, decay through Adam's gradient",
            lambda setting: measure_with(setting, Standard(), decoupled=False),
            must_fail=True,
        ),
    ],
)
