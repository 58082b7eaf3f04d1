"""Santurkar et al. 2018, section 2: does batch norm work by reducing internal covariate shift?

First batch norm with noise, which trains as well and shifts more than no norm. Then the shift as
the optimiser meets it: a layer's gradient before and after the layers below it have moved.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, at_least, at_most
from experiments.papers.claims.santurkar_2018 import CITATION
from experiments.papers.tools.spread import combinations, spread_each
from experiments.papers.tools.training import (
    NORMS,
    Images,
    State,
    Task,
    accuracy,
    advance,
    begin,
    next_loss,
    relu_task,
    standardized,
    step,
    with_population_stats,
)
from jbn import Noisy, Standard
from jbn.diagnostics import GradientShift, gradient_shift

_DEPTH = 10
_WATCHED = 4  # the fifth hidden layer
_BETWEEN = 50


def noisy_task(depth: int) -> Task:
    return relu_task(depth, Standard())._replace(norm_at=lambda step, key: Noisy(key))


def accuracy_and_drift(
    task: Task, window: int, images: Images, seed: jax.Array, learning_rate: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Four times in a run test accuracy, and how far the mean of a unit's batch moved.

    In standard deviations of the batch: mean over the units of the fifth hidden layer.
    """

    def watched(state: State, _: None) -> tuple[State, tuple[jax.Array, jax.Array]]:
        state, seen = step(task, images, state)
        inputs = seen.inputs[_WATCHED]
        return state, (jnp.mean(inputs, axis=0), jnp.std(inputs, axis=0))

    def look(state: State, _: None) -> tuple[State, tuple[jax.Array, jax.Array]]:
        state, (means, deviations) = jax.lax.scan(watched, state, length=window)
        drift = jnp.mean(jnp.std(means, axis=0) / jnp.mean(deviations, axis=0))
        return state, (accuracy(task, images, with_population_stats(task, images, state)), drift)

    start = begin(task, images, seed, learning_rate)
    return jax.lax.scan(look, start, length=4)[1]


def measure_noise(setting: Setting) -> Outcome:
    """Accuracy and shift without batch norm, with it, and with noise after it."""
    seeds = setting.seeds(full=6, quick=3)
    images = standardized(setting.mnist)
    depth, window = setting.pick(_DEPTH, 5), setting.pick(200, 50)
    tasks = {name: relu_task(depth, norm) for name, norm in NORMS.items()}
    tasks["with noise after it"] = noisy_task(depth)
    rates = np.full(len(seeds), 0.1, np.float32)
    runs = {name: partial(accuracy_and_drift, task, window) for name, task in tasks.items()}
    found = spread_each(runs, seeds, rates, given=(images,))
    courses, drifts = (np.stack(values, axis=1) for values in zip(*found.values()))
    accuracies, drifts = courses.mean(axis=2), drifts[..., -1]
    without, with_norm, noisy = accuracies.T
    as_good = -0.015 if setting.quick else -0.006
    checks = [
        Check("accuracy, noisy less without", noisy - without, at_least(0.0), "regression"),
        Check(
            "accuracy, noisy less batch norm", noisy - with_norm, at_least(as_good), "regression"
        ),
        Check(
            "shift, noisy over without", drifts[:, 2] / drifts[:, 0], at_least(1.0), "regression"
        ),
    ]
    times = window * np.arange(1, 5)
    plots = [
        Plot(
            "Accuracy",
            "step",
            "test accuracy",
            [Line(name, times, courses[:, i]) for i, name in enumerate(tasks)],
        ),
        Plot(
            "Shift in the fifth layer",
            "",
            "std of batch means / std of a batch",
            [Line("measured", range(len(tasks)), drifts)],
            categories=tuple(tasks),
        ),
    ]
    return Outcome(checks, plots)


def shifts(
    task: Task, looks: int, images: Images, seed: jax.Array, learning_rate: jax.Array
) -> GradientShift:
    """Of each hidden layer, every 50 steps of a run."""
    depth = len(task.model.widths)
    parts = ("hidden",) if task.model.norm is None else ("hidden", "norm")
    layers = [[f"{part}_{i}" for part in parts] for i in range(1, depth + 1)]

    def look(state: State, _: None) -> tuple[State, GradientShift]:
        state = advance(task, images, state, _BETWEEN)[0]
        loss_fn = next_loss(task, images, state)
        moved = step(task, images, state)[0]
        loss_of = lambda w: loss_fn(w)[0]  # noqa: E731
        seen = gradient_shift(loss_of, state.params, moved.params, layers, unmoved=["output"])
        return state, seen

    start = begin(task, images, seed, learning_rate)
    return jax.lax.scan(look, start, length=looks)[1]


def measure_gradient_shift(setting: Setting) -> Outcome:
    """How much more the gradients of layers 3, 6 and 9 change with batch norm."""
    seeds = setting.seeds(full=6, quick=3)
    rates = np.array([0.03, 0.1], np.float32)
    depth, layers = (5, (3,)) if setting.quick else (_DEPTH, (3, 6, 9))
    images = standardized(setting.mnist)

    looks = setting.pick(4, 2)
    runs = {name: partial(shifts, relu_task(depth, norm), looks) for name, norm in NORMS.items()}
    found = spread_each(runs, *combinations(seeds, rates), given=(images,))

    def over_looks(seen: GradientShift) -> GradientShift:
        return jax.tree.map(
            lambda x: x.reshape(len(seeds), len(rates), *x.shape[1:]).mean(axis=2),
            seen._replace(distance=seen.distance / seen.gradient_norm),
        )

    by_norm = {name: over_looks(seen) for name, seen in found.items()}
    without, with_norm = by_norm.values()
    checks = []
    for i, rate in enumerate(rates):
        for layer in layers:
            at = f"rate {rate:.2g}, layer {layer}"
            closer = (with_norm.cosine - without.cosine)[:, i, layer - 1]
            further = (with_norm.distance - without.distance)[:, i, layer - 1]
            checks += [
                Check(f"{at}: distance gained", further, at_least(0.0), "regression"),
                Check(f"{at}: cosine gained", closer, at_most(0.0), "regression"),
            ]
    places = np.arange(1, depth + 1)
    plots = [
        Plot(
            f"Learning rate {rate:.2g}",
            "hidden layer",
            "cosine of the two gradients",
            [Line(name, places, seen.cosine[:, i]) for name, seen in by_norm.items()],
        )
        for i, rate in enumerate(rates)
    ]
    remark = (
        "The paper measured this in VGG and in deep linear networks. Its own opposite, that batch "
        "norm works by reducing the shift, does not follow: see santurkar-noise."
    )
    return Outcome(checks, plots, [remark])


_SETUP = (
    "MNIST, standardised; 10 hidden layers of 100 ReLU, He initialisation, SGD, batch size 128, "
    "6 seeds."
)

NOISE = Claim(
    name="santurkar-noise",
    sentence="Batch norm helps even where noise after it makes the distributions of its outputs "
    "less stable than without batch norm.",
    citation=f"{CITATION}, section 2.1",
    setup=f"{_SETUP} Learning rate 0.1, 800 steps. Noise anew each step: a feature's mean from "
    "U(-0.5, 0.5), its scale from U(1, 1.25), an example's around them by 0.1; none at test.",
    formula="test accuracy, mean of steps 200, 400, 600 and 800; shift: standard deviation over "
    "the last 200 steps of a unit's batch mean, over the mean standard deviation in a batch; fifth "
    "layer",
    measure=measure_noise,
    needs_mnist=True,
)

GRADIENT_SHIFT = Claim(
    name="santurkar-gradient-shift",
    sentence="Batch norm does not reduce internal covariate shift, measured by how the update of "
    "the layers below changes a layer's gradient.",
    citation=f"{CITATION}, section 2.2",
    setup=f"{_SETUP} Learning rates 0.03 and 0.1; mean of steps 50, 100, 150 and 200.",
    formula="|G - G'| / |G| and cos(G, G'), G the layer's gradient before and G' after the layers "
    "below it took the step, same batch: with batch norm less without",
    measure=measure_gradient_shift,
    group="contested",
    needs_mnist=True,
)
