"""Ioffe & Szegedy 2015: figure 1, the sigmoid network on MNIST, with and without batch norm.

The paper states neither its learning rate nor its initialisation, so it is two pairs of them here.
One set of runs serves the accuracies and the drift of what the sigmoids are given.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
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
    once,
)
from experiments.papers.tools.mlp import MLP
from experiments.papers.tools.spread import spread_each
from experiments.papers.tools.training import (
    NORMS,
    Images,
    State,
    Task,
    accuracy,
    advance,
    begin,
    infer,
    pixels,
    unit_interval,
    with_population_stats,
)
from experiments.study.data import binary
from experiments.study.measure import typical_percentiles
from jbn import Variant

_CITATION = (
    "Ioffe & Szegedy 2015, Batch Normalization: Accelerating Deep Network Training by Reducing "
    "Internal Covariate Shift, ICML, arXiv:1502.03167"
)
_WINDOW = 1000  # steps between two looks
_WINDOWS = 10


class Config(NamedTuple):
    """What the paper leaves open, and what to expect of it."""

    learning_rate: float
    init_std: float
    early_gain: float
    """Accuracy gained after the first 1000 steps, at least."""

    def __str__(self) -> str:
        return f"rate {self.learning_rate}, initial std {self.init_std}"


CONFIGS = (
    Config(learning_rate=0.1, init_std=0.1, early_gain=0.25),
    Config(learning_rate=0.5, init_std=0.01, early_gain=0.6),
)


class Course(NamedTuple):
    """What is seen of a run every 1000 steps."""

    accuracy: jax.Array
    """`(times,)`, of the test set."""
    percentiles: jax.Array
    """`(times, 3)`: the 15th, 50th and 85th of what a typical unit's sigmoid is given in the last
    hidden layer."""

    @property
    def spread(self) -> jax.Array:
        return self.percentiles[..., 2] - self.percentiles[..., 0]

    @property
    def median(self) -> jax.Array:
        return self.percentiles[..., 1]


def course(
    task: Task, window: int, images: Images, seed: jax.Array, learning_rate: jax.Array
) -> Course:
    """A whole run."""

    def look(state: State, _: None) -> tuple[State, Course]:
        state = advance(task, images, state, window)[0]
        seen = with_population_stats(task, images, state)
        inputs = infer(task, seen, pixels(images, images.test[:2000]))[1]
        return state, Course(accuracy(task, images, seen), typical_percentiles(inputs[-1]))

    start = begin(task, images, seed, learning_rate)
    return jax.lax.scan(look, start, length=_WINDOWS)[1]


@once
def _courses(setting: Setting) -> dict[Config, dict[str, Course]]:
    seeds = setting.seeds(full=5, quick=3)
    configs = CONFIGS[1:] if setting.quick else CONFIGS
    images = unit_interval(binary(setting.mnist))

    def run(config: Config, norm: Variant | None) -> Callable[..., Course]:
        normal = jax.nn.initializers.normal(config.init_std)
        model = MLP((100,) * 3, jax.nn.sigmoid, normal, norm, epsilon=1e-3)
        return partial(course, Task(model, batch_size=60), setting.pick(_WINDOW, 100))

    def of(config: Config) -> dict[str, Course]:
        runs = {name: run(config, norm) for name, norm in NORMS.items()}
        rates = np.full(len(seeds), config.learning_rate, np.float32)
        return spread_each(runs, seeds, rates, given=(images,))

    return {config: of(config) for config in configs}


def _times(setting: Setting) -> np.ndarray:
    return setting.pick(_WINDOW, 100) * np.arange(1, _WINDOWS + 1)


def measure_accuracy(setting: Setting) -> Outcome:
    """Accuracy gained by batch norm early and late."""
    checks, plots = [], []
    for config, by_norm in _courses(setting).items():
        without, with_norm = (c.accuracy for c in by_norm.values())
        gain = with_norm - without
        early, late = _times(setting)[[0, -1]]
        checks.append(
            Check(
                f"{config}: accuracy gained after {early} steps",
                gain[:, 0],
                at_least(config.early_gain),
                "regression",
            )
        )
        checks.append(
            Check(
                f"{config}: accuracy gained after {late} steps",
                gain[:, -1],
                at_least(0.005),
                "regression",
            )
        )
        lines = [Line(name, _times(setting), c.accuracy) for name, c in by_norm.items()]
        plots.append(Plot(str(config), "step", "test accuracy", lines))
    return Outcome(checks, plots)


def measure_scale_drift(setting: Setting) -> Outcome:
    """By what factor the spread of what the last sigmoids are given changes in training."""
    checks, plots = [], []
    for config, by_norm in _courses(setting).items():
        without, with_norm = (c.spread.max(axis=1) / c.spread.min(axis=1) for c in by_norm.values())
        at = f"{config}: factor of change"
        checks.append(Check(f"{at}, with batch norm", with_norm, at_most(2.0), "regression"))
        checks.append(
            Check(
                f"{at}, without over with batch norm",
                without / with_norm,
                at_least(1.5),
                "regression",
            )
        )
        lines = [Line(name, _times(setting), c.spread) for name, c in by_norm.items()]
        label = "85th less 15th percentile"
        plots.append(Plot(str(config), "step", label, lines, log="y"))
    return Outcome(checks, plots)


def measure_median_drift(setting: Setting) -> Outcome:
    """How much less the typical unit's median moves with batch norm."""
    checks, plots = [], []
    for config, by_norm in _courses(setting).items():
        without, with_norm = (c.median.std(axis=1) for c in by_norm.values())
        checks.append(
            Check(
                f"{config}: standard deviation over time of the median, with batch norm less "
                "without",
                with_norm - without,
                at_most(0.0),
                "regression",
            )
        )
        lines = [Line(name, _times(setting), c.median) for name, c in by_norm.items()]
        plots.append(Plot(str(config), "step", "median", lines))
    remark = (
        "That it shifts less is not yet why batch norm helps (santurkar-noise), and of gradients "
        "it is told otherwise (santurkar-gradient-shift)."
    )
    return Outcome(checks, plots, [remark])


_SETUP = (
    "MNIST made binary, 3 hidden layers of 100 sigmoids, normal initialisation, SGD, batch size "
    "60, epsilon 0.001, 10,000 steps (the paper: 50,000), 5 seeds. The paper does not state its "
    "learning rate and initial standard deviation: 0.1 and 0.1, and 0.5 and 0.01. Test accuracy "
    "with the population's statistics."
)

ACCURACY = Claim(
    name="ioffe-accuracy",
    sentence="With batch norm a network of sigmoids trains faster and ends more accurate.",
    citation=f"{_CITATION}, section 4.1 and figure 1(a)",
    setup=_SETUP,
    formula="test accuracy with batch norm less without, after 1000 and 10,000 steps",
    measure=measure_accuracy,
    needs_mnist=True,
)

SCALE_DRIFT = Claim(
    name="ioffe-scale-drift",
    sentence="Batch norm keeps the scale of what a sigmoid is given stable during training.",
    citation=f"{_CITATION}, section 4.1 and figure 1(b, c)",
    setup=_SETUP,
    formula="largest over smallest, over time, of the 85th less the 15th percentile over the test "
    "set of the last hidden layer's sigmoid inputs; median over units",
    measure=measure_scale_drift,
    needs_mnist=True,
)

MEDIAN_DRIFT = Claim(
    name="ioffe-covariate-shift",
    sentence="Batch norm reduces internal covariate shift: the distribution of what a layer is "
    "given moves less during training.",
    citation=f"{_CITATION}, section 4.1 and figure 1(b, c)",
    setup=_SETUP,
    formula="standard deviation over time of the median over the test set of the last hidden "
    "layer's sigmoid inputs; median over units",
    measure=measure_median_drift,
    group="contested",
    needs_mnist=True,
)
