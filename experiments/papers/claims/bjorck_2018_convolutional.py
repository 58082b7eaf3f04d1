"""Bjorck et al. 2018 in a convolutional network: the largest learning rates that train."""

from functools import partial
from typing import Any

import jax
import numpy as np

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, at_least, once
from experiments.papers.tools.convolution import CNN
from experiments.papers.tools.spread import combinations, spread_each
from experiments.papers.tools.stand_ins import BATCH_NORM, beside_no_norm, stand_ins
from experiments.papers.tools.training import (
    Images,
    Task,
    accuracy,
    advance,
    begin,
    standardized,
    with_population_stats,
)
from experiments.study.data import load

_CHANNELS = (8, 8, 16, 16, 16, 16)
_BATCH_SIZE = 32
_LEARNS = 0.8


def largest_rate(rates: np.ndarray, accuracies: np.ndarray) -> np.ndarray:
    """Finds the largest rate that ends at an accuracy of 0.8 or more, as a power of ten.

    Args:
        rates: `(rates,)`, ascending.
        accuracies: `(seeds, rates)`.

    Returns:
        `(seeds,)`; NaN for a seed that learns at no rate.
    """
    logs = np.where(accuracies >= _LEARNS, np.log10(rates), -np.inf).max(axis=1)
    return np.where(np.isfinite(logs), logs, np.nan)


def trained_accuracy(
    task: Task, steps: int, images: Images, seed: jax.Array, learning_rate: jax.Array
) -> jax.Array:
    """Trains a network, and finds its accuracy with the population's statistics."""
    state, _ = advance(task, images, begin(task, images, seed, learning_rate), steps)
    return accuracy(task, images, with_population_stats(task, images, state))


def _rates(setting: Setting) -> np.ndarray:
    """From 0.05 up, by factors of 2, or 8 when quick."""
    factor = setting.pick(2, 8)
    return (0.05 * np.float32(factor) ** np.arange(setting.pick(9, 3))).astype(np.float32)


def _steps(setting: Setting) -> int:
    return setting.pick(200, 120)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=4, quick=3)


@once
def _accuracies(setting: Setting, norms: tuple[Any, ...]) -> list[np.ndarray]:
    """For each norm `(seeds, rates)`."""
    he, images = jax.nn.initializers.he_normal(), standardized(load("digits"))
    tasks = [Task(CNN(_CHANNELS, jax.nn.relu, he, norm), _BATCH_SIZE) for norm in norms]
    runs = {i: partial(trained_accuracy, task, _steps(setting)) for i, task in enumerate(tasks)}
    rows = combinations(_seeds(setting), _rates(setting))
    found = spread_each(runs, *rows, given=(images,))
    return [found[i].reshape(len(_seeds(setting)), -1) for i in runs]


def measure(setting: Setting, norm: Any = BATCH_NORM) -> Outcome:
    """By how much batch norm raises the largest learning rate that trains."""
    without, with_norm = beside_no_norm(_accuracies, setting, norm)
    rates = _rates(setting)
    risen = largest_rate(rates, with_norm) - largest_rate(rates, without)
    quantity = "powers of ten by which the largest usable rate rises"
    check = Check(quantity, risen, at_least(0.5), "published")
    plot = Plot(
        "A convolutional network",
        "learning rate",
        "test accuracy",
        [Line("no norm", rates, without), Line("batch norm", rates, with_norm)],
        log="x",
    )
    remark = (
        "The paper's ResNet of 110 layers trains with a rate of 0.1 with batch norm and 0.0001 "
        "without, a factor of 1000."
    )
    return Outcome([check], [plot], [remark])


def _setup(setting: Setting) -> str:
    rates = _rates(setting)
    return (
        f"Digits, standardised; {len(_CHANNELS)} convolutions of 3x3 with "
        f"{', '.join(map(str, _CHANNELS))} channels, the third with stride 2, ReLU, mean over "
        f"pixels, He initialisation, SGD, batch size {_BATCH_SIZE}, {_steps(setting)} steps, "
        f"{len(_seeds(setting))} seeds; {len(rates)} learning rates from {rates[0]:.3g} to "
        f"{rates[-1]:.3g} by factors of {rates[1] / rates[0]:.3g}. Accuracy on the test images, "
        "with the population's statistics."
    )


CONVOLUTIONAL = Claim(
    name="bjorck-convolutional",
    sentence="Batch norm lets a convolutional network train at learning rates several times "
    "larger.",
    citation="Bjorck, Gomes, Selman & Weinberger 2018, Understanding Batch Normalization, NeurIPS, "
    "arXiv:1806.02375, abstract and figure 1",
    setup=_setup,
    formula=f"log10 of the largest rate with accuracy {_LEARNS:g} or more, with batch norm less "
    "without; half a power of ten counts",
    measure=measure,
    registered="2026-11-28",
    stand_ins=stand_ins(measure, must_fail=("no norm",)),
)
