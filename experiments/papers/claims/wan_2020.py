"""Wan et al. 2020: weight decay sets how fast the weights before batch norm turn."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, near
from experiments.papers.tools.digits import (
    Images,
    digits,
    draw,
    hidden_kernels,
    initial,
    loss,
    network,
)
from experiments.papers.tools.spread import spread
from jbn.diagnostics import angular_update

_WIDTHS = (100, 100)
_BATCH_SIZE = 64
_EPSILON = 1e-8
_WINDOW = 100
_SETTLED = 2000


class _Rates(NamedTuple):
    learning_rate: float
    weight_decay: float
    momentum: float
    """Heavy ball."""

    def __str__(self) -> str:
        return f"eta {self.learning_rate:g}, lambda {self.weight_decay:g}, alpha {self.momentum:g}"


_RATES = (_Rates(0.5, 1e-2, 0.0), _Rates(0.5, 5e-3, 0.0), _Rates(0.1, 2e-3, 0.9))


class _Training(NamedTuple):
    """Mean over both hidden layers and over each window of steps."""

    square_angle: jax.Array
    """Of the angle, in radians, by which a step turns the layer's weights."""
    loss: jax.Array


def equilibrium_angle(learning_rate: float, weight_decay: float, momentum: float) -> float:
    """The angle per step, in radians: `sqrt(2 eta lambda / (1 + alpha))`, theorem 2."""
    return float(np.sqrt(2 * learning_rate * weight_decay / (1 + momentum)))


def train(
    windows: int,
    images: Images,
    seed: jax.Array,
    learning_rate: jax.Array,
    weight_decay: jax.Array,
    momentum: jax.Array,
) -> _Training:
    """SGD with heavy-ball momentum, and L2 decay of the weights before batch norm."""
    model = network(_WIDTHS, True, _EPSILON)
    weights_key, batches_key = jax.random.split(jax.random.key(seed))
    params = initial(model, weights_key)
    optimizer = optax.sgd(learning_rate, momentum=momentum)  # type: ignore[arg-type]

    def objective(params: Any, batch: Images) -> tuple[jax.Array, jax.Array]:
        value, _ = loss(model, params, batch)
        squares = [jnp.sum(jnp.square(w)) for w in hidden_kernels(params)]
        return value + weight_decay / 2 * jnp.sum(jnp.stack(squares)), value

    def step(state: tuple[Any, Any], t: jax.Array) -> tuple[Any, _Training]:
        params, opt_state = state
        batch = draw(images, jax.random.fold_in(batches_key, t), _BATCH_SIZE)
        gradient, value = jax.grad(objective, has_aux=True)(params, batch)
        updates, opt_state = optimizer.update(gradient, opt_state)
        moved = optax.apply_updates(params, updates)
        angles = angular_update(hidden_kernels(params), hidden_kernels(moved))
        return (moved, opt_state), _Training(jnp.mean(jnp.square(jnp.stack(angles))), value)

    steps = jnp.arange(windows * _WINDOW)
    _, training = jax.lax.scan(step, (params, optimizer.init(params)), steps)
    return jax.tree.map(lambda a: jnp.mean(a.reshape(windows, _WINDOW), axis=1), training)


def measure(setting: Setting) -> Outcome:
    """The root mean square angle per step over the last 2000 steps, beside theory."""
    seeds = setting.seeds(full=4, quick=3)
    every = _RATES[: setting.pick(full=len(_RATES), quick=1)]
    windows = setting.pick(full=6_000, quick=3_000) // _WINDOW
    rates = np.repeat(np.array(every, np.float32), len(seeds), axis=0)
    rows = np.tile(seeds, len(every)), *rates.T
    training = spread(partial(train, windows), *rows, given=[digits()])
    square_angles = training.square_angle.reshape(len(every), len(seeds), windows)
    losses = training.loss.reshape(len(every), len(seeds), windows)

    settled = slice(-_SETTLED // _WINDOW, None)
    ends = _WINDOW * np.arange(1, windows + 1)
    checks, lines, remarks = [], [], []
    for rate, square_angle, value in zip(every, square_angles, losses):
        expected = equilibrium_angle(*rate)
        angle = np.sqrt(square_angle[:, settled].mean(axis=1))
        allowed = near(expected, relative=0.06)
        checks.append(Check(f"{rate}: angle per step, radians", angle, allowed, "theory"))
        lines.append(Line(str(rate), ends, np.sqrt(square_angle)))
        lines.append(Line(f"{rate}, theory", ends, np.full(windows, expected), expected=True))
        remarks.append(f"{rate}: training loss {value[:, settled].mean():.2g}.")
    remarks.append(
        "Equilibrium needs gradients that stay. At a weaker decay (eta 0.5, lambda 0.002) the loss "
        "comes so close to zero that the angle swings around theory by a tenth for thousands of "
        "steps."
    )
    plot = Plot("The angle settles", "step", "angle per step, radians", lines, log="y")
    return Outcome(checks, [plot], remarks)


ANGLE = Claim(
    name="wan-angle",
    sentence="With weight decay, weights before batch norm settle to turn by the same angle at "
    "every step, which learning rate, decay and momentum alone decide.",
    citation="Wan, Zhu, Zhang & Sun 2020, Spherical Motion Dynamics, arXiv:2006.08419, theorems 1 "
    "to 3",
    setup="Digits, 64-100-100-10 ReLU with batch norm, 6000 steps of SGD, batch size 64, weight "
    "decay (added to the gradient) on the two hidden layers only; root mean square angle of the "
    "last 2000 steps; 4 seeds.",
    formula="angle = sqrt(2 eta lambda/(1 + alpha)), eta the learning rate, lambda the decay, "
    "alpha the momentum",
    measure=measure,
)
