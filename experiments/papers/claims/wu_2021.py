"""Wu & Johnson 2021: early in training the running average is of other weights."""

from functools import partial
from typing import NamedTuple

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
    between,
    near,
)
from experiments.papers.tools.mlp import MLP
from experiments.papers.tools.spread import spread
from experiments.papers.tools.training import (
    Images,
    State,
    Task,
    accuracy,
    advance,
    begin,
    unit_interval,
    with_population_stats,
)
from jbn import Standard

_MOMENTUM = 0.99
_WINDOW = 50  # steps between two looks


class Looks(NamedTuple):
    """What is seen every 50 steps."""

    average: jax.Array
    """Accuracy with the running average."""
    population: jax.Array
    """Accuracy with the population's statistics."""
    initial_weight: jax.Array
    """That the running average still gives to what it began with."""


def course(
    task: Task, looks: int, images: Images, seed: jax.Array, learning_rate: jax.Array
) -> Looks:
    """A whole run."""

    def look(states: tuple[State, State], _: None) -> tuple[tuple[State, State], Looks]:
        state, other = (advance(task, images, state, _WINDOW)[0] for state in states)
        average = accuracy(task, images, state)
        population = accuracy(task, images, with_population_stats(task, images, state))
        left = jax.tree.map(lambda a, b: jnp.mean(b - a), state.batch_stats, other.batch_stats)
        weight = jnp.mean(jnp.stack(jax.tree.leaves(left)))
        return (state, other), Looks(average, population, weight)

    start = begin(task, images, seed, learning_rate)
    # Its statistics begin 1 higher: what is left of that is the weight. Training never reads them.
    other = start._replace(batch_stats=jax.tree.map(lambda x: x + 1, start.batch_stats))
    return jax.lax.scan(look, (start, other), length=looks)[1]


def measure(setting: Setting) -> Outcome:
    """Accuracy gained by PreciseBN over the running average, as training goes on."""
    seeds = setting.seeds(full=24, quick=12)
    model = MLP((100, 100), jax.nn.relu, jax.nn.initializers.he_normal(), Standard(), _MOMENTUM)
    looks = setting.pick(10, 2)
    rates = np.full(len(seeds), 0.1, np.float32)
    images = (unit_interval(setting.mnist),)
    average, population, left = spread(
        partial(course, Task(model, batch_size=32), looks), seeds, rates, given=images
    )
    gained = population - average
    times = _WINDOW * np.arange(1, looks + 1)
    allowed = {50: at_least(0.025), 100: at_least(0.008), 500: between(-0.008, 0.008)}
    checks = [
        Check(
            f"accuracy gained at step {time}",
            gained[:, time // _WINDOW - 1],
            allowed[time],
            "regression",
        )
        for time in allowed
        if time <= times[-1]
    ]
    expected = _MOMENTUM ** times.astype(float)
    checks.append(
        Check(
            "weight of the initial statistics at step 100",
            left[:, 1],
            near(expected[1].item(), absolute=1e-4),
            "theory",
        )
    )
    plots = [
        Plot(
            "Accuracy by statistics",
            "step",
            "test accuracy",
            [
                Line("running average", times, average),
                Line("population's", times, population),
            ],
        ),
        Plot(
            "Weight of the initial statistics",
            "step",
            "weight",
            [Line("measured", times, left), Line("0.99^n", times, expected, expected=True)],
            log="y",
        ),
    ]
    return Outcome(checks, plots)


PRECISE = Claim(
    name="wu-precise",
    sentence="Early in training the running average misjudges a network; statistics computed anew "
    "at its weights do not.",
    citation='Wu & Johnson 2021, Rethinking "Batch" in BatchNorm, arXiv:2105.07576',
    setup="MNIST with pixels from 0 to 1, 2 hidden layers of 100 ReLU, He initialisation, SGD with "
    "learning rate 0.1, batch size 32, momentum 0.99 of the running average, which begins at mean "
    "0 and variance 1; 24 seeds.",
    formula="test accuracy with the statistics of 5000 training examples (PreciseBN) less that "
    "with the running average; weight 0.99^n of the initial statistics after n steps",
    measure=measure,
    group="further",
    needs_mnist=True,
)
