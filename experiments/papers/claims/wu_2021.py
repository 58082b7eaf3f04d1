"""Wu & Johnson 2021: early in training the running average is of other weights."""

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
    Range,
    Setting,
    StandIn,
    at_least,
    between,
    once,
)
from experiments.papers.tools.spread import spread
from experiments.papers.tools.training import (
    Images,
    State,
    Task,
    accuracy,
    advance,
    begin,
    relu_task,
    unit_interval,
    with_population_stats,
)
from jbn import Standard

_MOMENTUM = 0.99
_WINDOW = 50  # steps between two looks
_LEAST = 0.005  # half a point of accuracy: the least that counts
_LEARNING_RATE = 0.1
_BATCH_SIZE = 32


class Looks(NamedTuple):
    """Accuracy every 50 steps, by the statistics it is measured with."""

    running: jax.Array
    """The running average, which begins at mean 0 and variance 1."""
    debiased: jax.Array
    """That without the weight of what it began with."""
    population: jax.Array
    """Of 5000 training examples at the present weights."""


def debias(batch_stats: Any, initial: Any, step: Any, momentum: float = _MOMENTUM) -> Any:
    """The running average of the batches alone: `(s - m^n s_0) / (1 - m^n)` after n steps."""
    left = momentum**step
    return jax.tree.map(lambda s, s_0: (s - left * s_0) / (1 - left), batch_stats, initial)


def course(
    task: Task, looks: int, images: Images, seed: jax.Array, learning_rate: jax.Array
) -> Looks:
    """A whole run."""
    start = begin(task, images, seed, learning_rate)

    def look(state: State, _: None) -> tuple[State, Looks]:
        state = advance(task, images, state, _WINDOW)[0]
        alone = debias(state.batch_stats, start.batch_stats, state.step.astype(jnp.float32))
        population = with_population_stats(task, images, state)
        all_three = state, state._replace(batch_stats=alone), population
        return state, Looks(*(accuracy(task, images, s) for s in all_three))

    return jax.lax.scan(look, start, length=looks)[1]


@once
def _courses(setting: Setting) -> Looks:
    """Of `(seeds, looks)`."""
    seeds = _seeds(setting)
    task = relu_task(2, Standard(), batch_size=_BATCH_SIZE)
    assert task.model.momentum == _MOMENTUM
    rates = np.full(len(seeds), _LEARNING_RATE, np.float32)
    run = partial(course, task, _looks(setting))
    return spread(run, seeds, rates, given=(unit_interval(setting.mnist),))


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=24, quick=12)


def _looks(setting: Setting) -> int:
    return setting.pick(10, 2)


def measure(setting: Setting, statistics: str = "population") -> Outcome:
    """Accuracy gained by PreciseBN over the running average, and how much of it is lag."""
    looks = _courses(setting)
    precise = getattr(looks, statistics)
    total, lag = precise - looks.running, precise - looks.debiased
    times = _WINDOW * np.arange(1, _looks(setting) + 1)

    def check(gained: np.ndarray, over: str, time: int, allowed: Range, source: Any) -> Check:
        name = f"step {time}: accuracy gained over the {over}"
        return Check(name, gained[:, time // _WINDOW - 1], allowed, source)

    ranges = {50: at_least(0.025), 100: at_least(0.008), 500: between(-0.008, 0.008)}
    checks = [
        check(total, "running average", time, allowed, "regression")
        for time, allowed in ranges.items()
        if time <= times[-1]
    ]
    checks += [
        check(lag, "debiased average", time, at_least(_LEAST), "published") for time in (50, 100)
    ]
    first = total[:, 0].mean(), (total - lag)[:, 0].mean()
    remarks = [
        f"Of {first[0]:.3f} at step {times[0]}, {first[1]:.3f} is the weight of the mean 0 and "
        f"variance 1 with which the running average begins ({_MOMENTUM ** times[0]:.0%} of it "
        f"there, {_MOMENTUM ** times[1]:.0%} at step {times[1]}), which a division takes out; the "
        "rest is lag, an average over other weights, which is the paper's point.",
    ]
    plots = [
        Plot(
            "Accuracy by statistics",
            "step",
            "test accuracy",
            [
                Line("running average", times, looks.running),
                Line("debiased average", times, looks.debiased),
                Line("population's", times, looks.population),
            ],
        ),
        Plot(
            "Gained by the population's",
            "step",
            "test accuracy gained",
            [
                Line("over the running average", times, total),
                Line("over the debiased average", times, lag),
            ],
        ),
    ]
    return Outcome(checks, plots, remarks)


def _setup(setting: Setting) -> str:
    return (
        "MNIST with pixels from 0 to 1, 2 hidden layers of 100 ReLU, He initialisation, SGD with "
        f"learning rate {_LEARNING_RATE}, batch size {_BATCH_SIZE}, momentum {_MOMENTUM} of the "
        f"running average, which begins at mean 0 and variance 1; {_looks(setting) * _WINDOW} "
        f"steps, {len(_seeds(setting))} seeds."
    )


PRECISE = Claim(
    name="wu-precise",
    sentence="Early in training the running average misjudges a network, because it is of other "
    "weights; statistics computed anew at its weights do not.",
    citation='Wu & Johnson 2021, Rethinking "Batch" in BatchNorm, arXiv:2105.07576, section 3',
    setup=_setup,
    formula="test accuracy with the statistics of 5000 training examples (PreciseBN) less that "
    "with the running average s, and less that with (s - 0.99^n s_0)/(1 - 0.99^n), s_0 its "
    f"beginning; {_LEAST} is the least that counts",
    measure=measure,
    group="further",
    needs_mnist=True,
    registered="2026-11-22",
    changes=(
        "2026-11-28: new, the gain over the debiased average, since most of the gain over the "
        "running average is its beginning and not other weights. Gone: the weight of the "
        "beginning, which is a formula of the running average.",
    ),
    stand_ins=[
        StandIn("the debiased average", partial(measure, statistics="debiased"), must_fail=True)
    ],
)
