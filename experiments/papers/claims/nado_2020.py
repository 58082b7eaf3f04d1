"""Nado et al. and Schneider et al. 2020: a test batch's own statistics against a shift of the data.

And what they do where a batch is not like the data: in a stream that comes class by class.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

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
    at_most,
)
from experiments.papers.tools.mlp import in_training
from experiments.papers.tools.spread import spread
from experiments.papers.tools.stand_ins import stand_ins
from experiments.papers.tools.training import (
    Images,
    advance,
    begin,
    infer,
    pixels,
    relu_task,
    unit_interval,
    with_population_stats,
)
from experiments.study.data import load
from jbn import Standard

_DEPTH = 3
_LEARNING_RATE = 0.1
_BATCH_SIZE = 64
_STREAM = 16  # examples of a test batch in the stream that is sorted by class

Corruption = Callable[[jax.Array, jax.Array], jax.Array]
"""(pixels in [0, 1], key) -> what the network is shown."""


def contrast(x: jax.Array, key: jax.Array) -> jax.Array:
    """A third of the contrast around each image's mean."""
    mean = jnp.mean(x, axis=1, keepdims=True)
    return mean + 0.3 * (x - mean)


def brightness(x: jax.Array, key: jax.Array) -> jax.Array:
    return x + 0.3


def noise(x: jax.Array, key: jax.Array) -> jax.Array:
    return x + 0.3 * jax.random.normal(key, x.shape)


CORRUPTIONS: dict[str, Corruption] = {
    "clean": lambda x, key: x,
    "contrast": contrast,
    "brightness": brightness,
    "noise": noise,
}
_SORTED = f"sorted, {_STREAM}"
_KINDS = (*CORRUPTIONS, _SORTED)


def train_and_test(
    norm: Any, steps: int, images: Images, seed: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Accuracy on the test set of each kind: with the population's statistics and a batch's own.

    The batch is the whole test set, or, of the sorted ones, 16 images.
    """
    task = relu_task(_DEPTH, norm)._replace(batch_size=_BATCH_SIZE)
    state = begin(task, images, seed, jnp.float32(_LEARNING_RATE))
    state, _ = advance(task, images, state, steps)
    state = with_population_stats(task, images, state)
    x, labels = pixels(images, images.test), images.test_labels
    key = jax.random.fold_in(jax.random.key(seed), 1)

    def own(x: jax.Array) -> Any:
        return in_training(task.model, state.params, state.batch_stats, x)[0]

    def right(scores: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.mean(jnp.argmax(scores, axis=-1) == labels)

    shown = [change(x, key) for change in CORRUPTIONS.values()]
    population = [right(infer(task, state, each)[0], labels) for each in shown]
    adapted = [right(own(each), labels) for each in shown]
    whole = x.shape[0] // _STREAM * _STREAM
    order = jnp.argsort(labels)[:whole]
    stream, truth = x[order].reshape(-1, _STREAM, x.shape[1]), labels[order].reshape(-1, _STREAM)
    population.append(right(infer(task, state, x[order])[0], labels[order]))
    adapted.append(right(jax.lax.map(own, stream), truth))
    return jnp.stack(population), jnp.stack(adapted)


def _steps(setting: Setting) -> int:
    return setting.pick(full=1500, quick=500)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=10, quick=8)


def measure_with(setting: Setting, norm: Any) -> Outcome:
    """What a test batch's own statistics add to accuracy, by kind of test set."""
    seeds, images = _seeds(setting), unit_interval(load("digits"))
    population, own = spread(partial(train_and_test, norm, _steps(setting)), seeds, given=(images,))
    plain, _ = spread(partial(train_and_test, None, _steps(setting)), seeds, given=(images,))
    gain = dict(zip(_KINDS, (own - population).T))
    lost = dict(zip(_KINDS, (plain - population).T))
    clean = population[:, 0]
    name = "accuracy that the test batch's own statistics add"
    checks = [
        Check(f"contrast 0.3: {name}", gain["contrast"], at_least(0.3), "regression"),
        Check(f"brightness +0.3: {name}", gain["brightness"], at_least(0.01), "regression"),
        Check(f"noise of deviation 0.3: {name}", gain["noise"], at_least(0.0), "published"),
        Check(
            f"batches of {_STREAM} sorted by class: {name}",
            gain[_SORTED],
            at_most(-0.5),
            "regression",
        ),
        Check(
            "contrast 0.3: accuracy that a network without a norm has over one with the "
            "population's statistics",
            lost["contrast"],
            at_least(0.1),
            "regression",
        ),
        Check("clean: accuracy", clean, at_least(0.9), "regression", control=True),
    ]
    places = np.arange(len(_KINDS))
    plot = Plot(
        "Accuracy by test set",
        "test set",
        "accuracy",
        [
            Line("no norm", places, plain),
            Line("batch norm", places, population),
            Line("batch norm, test batch's own statistics", places, own),
        ],
        categories=_KINDS,
    )
    return Outcome(checks, [plot])


def _describe(setting: Setting) -> str:
    return (
        f"Digits, 64-{'-'.join(['100'] * _DEPTH)}-10 ReLU, {_steps(setting)} steps of SGD at rate "
        f"{_LEARNING_RATE:g}, batch size {_BATCH_SIZE}; the test set as it is, with 0.3 of its "
        "contrast, brighter by 0.3, with noise of deviation 0.3 (pixels from 0 to 1), each as one "
        f"batch; and sorted by class, in batches of {_STREAM}; {len(_seeds(setting))} seeds."
    )


TEST_TIME = Claim(
    name="nado-test-statistics",
    sentence="Statistics of the test batch repair what a shift of the data did to a network with "
    "batch norm, and ruin it where a batch has few classes.",
    citation="Nado et al. 2020, Evaluating Prediction-Time Batch Normalization for Robustness "
    "under Covariate Shift, arXiv:2006.10963; Schneider et al. 2020, Improving Robustness against "
    "Common Corruptions by Covariate Shift Adaptation, NeurIPS, arXiv:2006.16971; for sorted "
    "streams Gong et al. 2022, NOTE, NeurIPS, arXiv:2208.05117",
    setup=_describe,
    formula="accuracy with the test batch's mean and variance, less that with the training set's",
    measure=lambda setting: measure_with(setting, Standard()),
    group="further",
    registered="2026-11-28",
    stand_ins=stand_ins(measure_with, must_fail=("no norm",)),
)
