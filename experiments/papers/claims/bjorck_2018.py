"""Bjorck et al. 2018: what batch norm brings is larger learning rates.

The same runs answer the slogan that batch norm trains faster, all else equal.
"""

from functools import partial

import jax
import numpy as np

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, at_least, once
from experiments.papers.tools.spread import combinations, spread_each
from experiments.papers.tools.training import (
    NORMS,
    Images,
    Task,
    accuracy,
    advance,
    begin,
    relu_task,
    standardized,
    with_population_stats,
)

_CITATION = (
    "Bjorck, Gomes, Selman & Weinberger 2018, Understanding Batch Normalization, NeurIPS, "
    "arXiv:1806.02375"
)
_STEPS = 300
_RATES = np.array([0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30], np.float32)
_QUICK_RATES = np.array([0.01, 0.1, 1, 10], np.float32)
_LEARNS = 0.8


def usable(rates: np.ndarray, accuracies: np.ndarray) -> np.ndarray:
    """The largest rate that ends at an accuracy of 0.8 or more, as a power of ten.

    Args:
        rates: `(rates,)`, ascending.
        accuracies: `(seeds, rates)`.

    Returns:
        `(seeds,)`; NaN for a seed that learns at no rate.
    """
    learns = accuracies >= _LEARNS
    last = learns.shape[1] - 1 - np.argmax(learns[:, ::-1], axis=1)
    return np.where(learns.any(axis=1), np.log10(rates)[last], np.nan)


def trained_accuracy(
    task: Task, steps: int, images: Images, seed: jax.Array, learning_rate: jax.Array
) -> jax.Array:
    state, _ = advance(task, images, begin(task, images, seed, learning_rate), steps)
    return accuracy(task, images, with_population_stats(task, images, state))


def _rates(setting: Setting) -> np.ndarray:
    return _QUICK_RATES if setting.quick else _RATES


@once
def _accuracies(setting: Setting) -> dict[int, dict[str, np.ndarray]]:
    """Test accuracy `(seeds, rates)` by depth and norm."""
    seeds = setting.seeds(full=5, quick=3)
    # Half a test set is enough for differences of a percent.
    images = standardized(setting.mnist)
    images = images._replace(test=images.test[:5000], test_labels=images.test_labels[:5000])
    steps = setting.pick(_STEPS, 150)

    def of(depth: int) -> dict[str, np.ndarray]:
        tasks = {name: relu_task(depth, norm) for name, norm in NORMS.items()}
        runs = {name: partial(trained_accuracy, task, steps) for name, task in tasks.items()}
        found = spread_each(runs, *combinations(seeds, _rates(setting)), given=(images,))
        return {name: accuracies.reshape(len(seeds), -1) for name, accuracies in found.items()}

    depths = (3,) if setting.quick else (3, 10)
    return {depth: of(depth) for depth in depths}


def _plots(setting: Setting) -> list[Plot]:
    return [
        Plot(
            f"{depth} hidden layers",
            "learning rate",
            "test accuracy",
            [Line(name, _rates(setting), found) for name, found in by_norm.items()],
            log="x",
        )
        for depth, by_norm in _accuracies(setting).items()
    ]


def measure_tolerance(setting: Setting) -> Outcome:
    """By how much batch norm raises the largest learning rate that trains."""
    checks = []
    for depth, by_norm in _accuracies(setting).items():
        without, with_norm = (usable(_rates(setting), found) for found in by_norm.values())
        checks.append(
            Check(
                f"{depth} hidden layers: powers of ten by which the largest usable rate rises",
                with_norm - without,
                at_least(0.5),
                "regression",
            )
        )
    return Outcome(checks, _plots(setting))


def measure_speed(setting: Setting) -> Outcome:
    """What batch norm adds to accuracy at a small rate for both, and at the best for each."""
    checks, best = [], []
    for depth, by_norm in _accuracies(setting).items():
        without, with_norm = by_norm.values()
        at = f"{depth} hidden layers: accuracy gained at"
        smallest = with_norm[:, 0] - without[:, 0]
        checks.append(
            Check(f"{at} rate {_rates(setting)[0]:.3g}", smallest, at_least(0.0), "regression")
        )
        own_best = with_norm.max(axis=1) - without.max(axis=1)
        best.append(Check(f"{at} each one's best rate", own_best, at_least(0.0), "regression"))
    remark = (
        "The comparison turns with the learning rate: slower at a small one for both, better when "
        "each has the best of its own."
    )
    return Outcome([*checks, *best], _plots(setting), [remark])


_SETUP = (
    "MNIST, standardised; 3 or 10 hidden layers of 100 ReLU, He initialisation, SGD, batch size "
    "128, 300 steps, 5 seeds, learning rates from 0.003 to 30 in half powers of ten. Accuracy on "
    "5000 test images, with the population's statistics."
)

TOLERANCE = Claim(
    name="bjorck-learning-rates",
    sentence="Batch norm lets networks train at learning rates many times larger.",
    citation=f"{_CITATION}, abstract",
    setup=_SETUP,
    formula="log10 of the largest rate with accuracy 0.8 or more, with batch norm less without; "
    "measured before: 1 (3 layers) and 1.5 (10 layers)",
    measure=measure_tolerance,
    needs_mnist=True,
)

SPEED = Claim(
    name="bjorck-all-else-equal",
    sentence="Batch norm trains faster, all else equal.",
    citation=f"{_CITATION}, for the learning rate's part; the slogan is of no one paper",
    setup=_SETUP,
    formula="accuracy after 300 steps with batch norm less without: at the smallest rate, and each "
    "at its own best",
    measure=measure_speed,
    group="contested",
    needs_mnist=True,
)
