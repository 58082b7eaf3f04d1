"""Hoffer et al. 2017: do large batches generalise better when normalised in small groups?"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, at_least
from experiments.papers.tools.mlp import MLP
from experiments.papers.tools.spread import spread_each
from experiments.papers.tools.training import (
    Images,
    Task,
    accuracy,
    advance,
    begin,
    standardized,
    with_population_stats,
)
from jbn import Ghost, Standard, Variant

_BATCH_SIZE = 1024
_LAST = 20  # steps over which the training loss is averaged


def trained(
    task: Task, steps: int, images: Images, seed: jax.Array, learning_rate: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Test accuracy, and training loss at the end."""
    state, losses = advance(task, images, begin(task, images, seed, learning_rate), steps)
    state = with_population_stats(task, images, state)
    return accuracy(task, images, state), jnp.mean(losses[-_LAST:])


def measure(setting: Setting) -> Outcome:
    """What groups of 128 and 16 change in test accuracy and training loss."""
    seeds = setting.seeds(full=6, quick=3)
    images = standardized(setting.mnist)
    groups = (16,) if setting.quick else (128, 16)
    rates = np.full(len(seeds), 0.4, np.float32)

    def run(norm: Variant) -> Callable[..., tuple[jax.Array, jax.Array]]:
        model = MLP((128, 128), jax.nn.relu, jax.nn.initializers.he_normal(), Standard())
        # In training alone: at test there are no groups.
        task = Task(model, _BATCH_SIZE, norm_at=lambda step, key: norm)
        return partial(trained, task, setting.pick(200, 40))

    runs = {norm: run(norm) for norm in (Standard(), *map(Ghost, groups))}
    whole, *found = spread_each(runs, seeds, rates, given=(images,)).values()
    checks = []
    for group, (test, loss) in zip(groups, found):
        checks.append(
            Check(
                f"groups of {group}: accuracy gained",
                test - whole[0],
                at_least(0.001),
                "regression",
            )
        )
        if group == 16:
            checks.append(
                Check(
                    "groups of 16: factor of the training loss",
                    loss / whole[1],
                    at_least(1.2),
                    "regression",
                )
            )
    names = ["whole batch", *(f"groups of {group}" for group in groups)]
    places = range(len(names))
    plots = [
        Plot(
            title,
            "",
            title,
            [Line("measured", places, np.stack([run[i] for run in (whole, *found)], axis=1))],
            categories=names,
        )
        for i, title in enumerate(("test accuracy", "training loss"))
    ]
    remark = (
        "The noise of small groups shows in the training loss. What it does for test accuracy is "
        "too little for a network like this one to show."
    )
    return Outcome(checks, plots, [remark])


GHOST = Claim(
    name="hoffer-ghost",
    sentence="Normalised in small groups, large batches generalise better.",
    citation="Hoffer, Hubara & Soudry 2017, Train longer, generalize better: closing the "
    "generalization gap in large batch training of neural networks, NeurIPS, arXiv:1705.08741, "
    "section 4",
    setup="MNIST, standardised; 2 hidden layers of 128 ReLU, He initialisation, SGD with learning "
    "rate 0.4, batch size 1024, 200 steps, 6 seeds; the population's statistics at test.",
    formula="test accuracy with groups of 128 and 16 less that with the whole batch, 0.001 or "
    "more; training loss, mean of the last 20 steps",
    measure=measure,
    group="contested",
    needs_mnist=True,
)
