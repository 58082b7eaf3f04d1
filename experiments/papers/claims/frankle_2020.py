"""Frankle et al. 2020: a network of random weights learns by its batch norms' gamma and beta alone.

Training only so many of its weights, drawn at random, is what that is compared with.
"""

from collections.abc import Callable
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
    at_least,
    between,
    once,
)
from experiments.papers.tools.spread import spread_each
from experiments.papers.tools.stand_ins import BATCH_NORM, stand_ins
from experiments.papers.tools.training import (
    Images,
    State,
    Task,
    accuracy,
    begin,
    next_loss,
    relu_task,
    standardized,
    with_population_stats,
)
from experiments.study.data import load
from experiments.study.train import key_of

_DEPTH = 3
_RATE = 0.3
_BATCH_SIZE = 64
_SMALL = 0.01
"""The paper's limit: below it a gamma counts as zero."""
_CHOICE = 7  # what the random numbers are for that choose weights

Mask = Callable[[Any, jax.Array], Any]
"""(parameters, seed) -> for each number of them whether it is trained."""


class Ended(NamedTuple):
    """A run at its end."""

    accuracy: jax.Array
    small: jax.Array
    """Share of gammas smaller than 0.01; NaN without a scale."""


def affine_only(params: Any, seed: jax.Array) -> Any:
    """Chooses the norms' own parameters."""
    return {
        name: jax.tree.map(partial(jnp.full_like, fill_value=name.startswith("norm_")), layer)
        for name, layer in params.items()
    }


def everything(params: Any, seed: jax.Array) -> Any:
    """Chooses all parameters."""
    return jax.tree.map(jnp.ones_like, params)


def random_weights(params: Any, seed: jax.Array) -> Any:
    """Chooses as many numbers of each layer's kernel as its norm has parameters.

    The kernel has `(units, inputs)`; each unit gets as many, whatever its norm has per unit.
    """
    depth = sum(name.startswith("hidden_") for name in params)
    chosen = jax.tree.map(jnp.zeros_like, params)
    for i in range(1, depth + 1):
        kernel = params[f"hidden_{i}"]["kernel"]
        per_unit = sum(leaf.size for leaf in jax.tree.leaves(params[f"norm_{i}"])) // len(kernel)
        key = key_of(seed, _CHOICE, jnp.int32(i))
        order = jnp.argsort(jax.random.uniform(key, kernel.shape), axis=1)
        chosen[f"hidden_{i}"]["kernel"] = (order < per_unit).astype(kernel.dtype)
    return chosen


def train(
    task: Task, mask: Mask, steps: int, images: Images, seed: jax.Array, learning_rate: jax.Array
) -> Ended:
    """Trains what `mask` chooses of a network."""
    start = begin(task, images, seed, learning_rate)
    chosen = mask(start.params, seed)

    def one(state: State, _: None) -> tuple[State, None]:
        gradient, (batch_stats, _) = jax.grad(next_loss(task, images, state), has_aux=True)(
            state.params
        )
        params = jax.tree.map(
            lambda w, g, m: w - learning_rate * m * g, state.params, gradient, chosen
        )
        state = state._replace(step=state.step + 1, params=params, batch_stats=batch_stats)
        return state, None

    state, _ = jax.lax.scan(one, start, length=steps)
    state = with_population_stats(task, images, state)
    return Ended(accuracy(task, images, state), small_share(state.params))


def small_share(params: Any) -> jax.Array:
    """Finds the share of gammas within 0.01 of zero; NaN where there are none."""
    scales = [layer["scale"] for layer in params.values() if "scale" in layer]
    if not scales:
        return jnp.float32(jnp.nan)
    return jnp.mean(jnp.abs(jnp.concatenate(scales)) < _SMALL)


def _widths(setting: Setting) -> tuple[int, ...]:
    return (100,) if setting.quick else (30, 100, 200)


def _steps(setting: Setting) -> int:
    return setting.pick(1000, 300)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=5, quick=4)


@once
def _ended(setting: Setting, norm: Any) -> dict[int, dict[str, Ended]]:
    """By width and by what is trained."""
    images, seeds = standardized(load("digits")), _seeds(setting)
    rates = np.full(len(seeds), _RATE, np.float32)
    masks: dict[str, Mask] = {"all": everything, "gamma and beta": affine_only}
    if norm == BATCH_NORM:
        masks["as many weights"] = random_weights

    def of(width: int) -> dict[str, Ended]:
        task = relu_task(_DEPTH, norm, width)._replace(batch_size=_BATCH_SIZE)
        runs = {name: partial(train, task, m, _steps(setting)) for name, m in masks.items()}
        return spread_each(runs, seeds, rates, given=(images,))

    return {width: of(width) for width in _widths(setting)}


def measure_learning(setting: Setting, norm: Any = BATCH_NORM) -> Outcome:
    """Accuracy when gamma and beta alone are trained, as many weights, and everything."""
    ours, reference = _ended(setting, norm), _ended(setting, BATCH_NORM)
    checks = []
    for width, found in ours.items():
        affine = found["gamma and beta"].accuracy
        weights = reference[width]["as many weights"].accuracy
        said = f"width {width}: accuracy by gamma and beta alone"
        checks.append(
            Check(f"{said}, less by as many weights", affine - weights, at_least(0.01), "published")
        )
        if width == max(ours):
            checks.append(Check(said, affine, at_least(0.8), "regression"))
    lines = [
        Line(
            name, [*reference], np.stack([found[name].accuracy for found in reference.values()], 1)
        )
        for name in reference[max(reference)]
    ]
    plot = Plot("What is trained", "width of hidden layers", "test accuracy", lines, log="x")
    return Outcome(checks, [plot])


def measure_sparsity(setting: Setting, norm: Any = BATCH_NORM) -> Outcome:
    """How many gammas end near zero when nothing else but beta is trained."""
    found = {width: by["gamma and beta"].small for width, by in _ended(setting, norm).items()}
    checks = [
        Check(f"width {width}: share of gammas below {_SMALL:g}", s, between(0.2, 0.5), "published")
        for width, s in found.items()
    ]
    line = Line("batch norm", [*found], np.stack([*found.values()], axis=1))
    plot = Plot("Gammas near zero", "width of hidden layers", "share below 0.01", [line], log="x")
    remark = (
        "The paper's networks are ResNets on CIFAR-10 and ImageNet, which have far more layers and "
        "train far longer than these."
    )
    return Outcome(checks, [plot], [remark])


def _setup(setting: Setting) -> str:
    widths = ", ".join(map(str, _widths(setting)))
    return (
        f"Digits, standardised; {_DEPTH} hidden layers of {widths} ReLU, He initialisation, SGD, "
        f"batch size {_BATCH_SIZE}, learning rate {_RATE:g}, {_steps(setting)} steps, "
        f"{len(_seeds(setting))} seeds. The output layer is not trained, nor the kernels; in the "
        "comparison two weights of each unit are, drawn at random. Accuracy with the population's "
        "statistics."
    )


_CITATION = (
    "Frankle, Schwab & Morcos 2021, Training BatchNorm and Only BatchNorm: On the Expressive Power "
    "of Random Features in CNNs, ICLR, arXiv:2003.00152"
)

_CHANGED = (
    "2026-11-28: batch size, widths, steps and seeds were chosen after a look at the quick form. "
    "The ranges stand."
)

LEARNING = Claim(
    name="frankle-affine",
    sentence="With all kernels random and fixed, training batch norm's gamma and beta alone "
    "learns, and more than training as many weights chosen at random.",
    citation=f"{_CITATION}, abstract and figure 2",
    setup=_setup,
    formula="test accuracy; a point at least counts as more",
    measure=measure_learning,
    registered="2026-11-28",
    changes=(_CHANGED,),
    stand_ins=stand_ins(measure_learning, must_fail=("no norm",)),
)

SPARSITY = Claim(
    name="frankle-sparse",
    sentence="Training gamma and beta alone disables around a third of the random features.",
    citation=f"{_CITATION}, abstract and section 5",
    setup=_setup,
    formula=f"share of |gamma| < {_SMALL:g}; around a third is taken as 0.2 to 0.5",
    measure=measure_sparsity,
    group="contested",
    registered="2026-11-28",
    changes=(_CHANGED,),
    stand_ins=stand_ins(measure_sparsity, must_fail=("no norm",)),
)
