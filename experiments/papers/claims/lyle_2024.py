"""Lyle et al. 2024: a network with a norm goes on learning task after task, if its weights stay.

Each task gives the same images new random labels. Weights before a norm grow, so that a step turns
them less and less; Normalise-and-Project (NaP) puts them back to the length they began with.
"""

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
    at_most,
    once,
)
from experiments.papers.tools.digits import (
    Images,
    digits,
    draw,
    hidden_kernels,
    initial,
    replace_hidden,
)
from experiments.papers.tools.mlp import MLP, NUM_CLASSES, cross_entropy, in_training
from experiments.papers.tools.spread import combinations, spread_each
from experiments.papers.tools.stand_ins import BATCH_NORM, beside_no_norm, stand_ins
from experiments.study.train import key_of

_WIDTHS = (100, 100, 100)
_EXAMPLES = 500
_BATCH_SIZE = 64
_RATES = np.array([0.03, 0.1], np.float32)

# What a seed's random numbers are for.
_WEIGHTS, _LABELS, _BATCHES = range(3)


class Tasks(NamedTuple):
    """Of each task, in turn."""

    fitted: jax.Array
    """Training accuracy at its end."""
    online: jax.Array
    """Accuracy on each batch before the step on it, mean over the task: how fast it learns."""
    square: jax.Array
    """|w|² of all hidden kernels at its end, over that at the start."""


def project(params: Any, like: Any) -> Any:
    """Gives each hidden neuron's weights the length that they have in `like`."""

    def shorten(w: jax.Array, w0: jax.Array) -> jax.Array:
        squares = (jnp.sum(jnp.square(k), axis=0, keepdims=True) for k in (w0, w))
        return w * jnp.sqrt(next(squares) / next(squares))

    pairs = zip(hidden_kernels(params), hidden_kernels(like), strict=True)
    return replace_hidden(params, [shorten(w, w0) for w, w0 in pairs])


def scores_of(model: MLP, params: Any, x: Any) -> jax.Array:
    """Class scores with the batch's own statistics."""
    empty = {
        name: {"mean": jnp.zeros_like(layer["bias"]), "var": jnp.ones_like(layer["scale"])}
        for name, layer in params.items()
        if name.startswith("norm_") and {"bias", "scale"} <= {*layer}
    }
    return in_training(model, params, empty, jnp.asarray(x))[0]


def train(
    norm: Any,
    projected: bool,
    tasks: int,
    steps: int,
    x: jax.Array,
    seed: jax.Array,
    learning_rate: jax.Array,
) -> Tasks:
    """One task after the other, by SGD."""
    he = jax.nn.initializers.he_normal()
    model = MLP(_WIDTHS, jax.nn.relu, he, norm)
    start = initial(model, key_of(seed, _WEIGHTS))

    def square(params: Any) -> jax.Array:
        return jnp.sum(jnp.stack([jnp.sum(jnp.square(w)) for w in hidden_kernels(params)]))

    def of_task(params: Any, task: jax.Array) -> tuple[Any, Tasks]:
        key = key_of(seed, _LABELS, task)
        images = Images(x, jax.random.randint(key, (x.shape[0],), 0, NUM_CLASSES))

        def loss(params: Any, batch: Images) -> tuple[jax.Array, jax.Array]:
            scores = scores_of(model, params, batch.x)
            return cross_entropy(scores, batch.labels), correct(scores, batch.labels)

        def one(params: Any, t: jax.Array) -> tuple[Any, jax.Array]:
            batch = draw(images, key_of(seed, _BATCHES, task, t), _BATCH_SIZE)
            gradient, right = jax.grad(loss, has_aux=True)(params, batch)
            params = jax.tree.map(lambda w, g: w - learning_rate * g, params, gradient)
            return project(params, start) if projected else params, right

        params, online = jax.lax.scan(one, params, jnp.arange(steps))
        fitted = correct(scores_of(model, params, x), images.labels)
        return params, Tasks(fitted, jnp.mean(online), square(params) / square(start))

    return jax.lax.scan(of_task, start, jnp.arange(tasks))[1]


def correct(scores: jax.Array, labels: Any) -> jax.Array:
    """Share of the examples whose label has the highest score; none where scores are no numbers."""
    found = jnp.argmax(scores, axis=-1) == labels
    return jnp.mean(found & jnp.isfinite(scores).all(axis=-1))


def _tasks(setting: Setting) -> int:
    return setting.pick(12, 5)


def _steps(setting: Setting) -> int:
    return setting.pick(500, 300)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=4, quick=3)


@once
def _trained(setting: Setting, norms: tuple[Any, ...], projected: bool = False) -> list[Tasks]:
    """For each norm, of its rate that fits the first task best: `(seeds, tasks)`."""
    x = digits(_EXAMPLES).x
    seeds, sizes = _seeds(setting), (_tasks(setting), _steps(setting))
    runs = {i: partial(train, norm, projected, *sizes) for i, norm in enumerate(norms)}
    found = spread_each(runs, *combinations(seeds, _RATES), given=(x,))
    return [at_best_rate(found[i], len(seeds)) for i in runs]


def at_best_rate(found: Tasks, seeds: int) -> Tasks:
    """The runs of the rate that fits the first task best, mean over seeds; the larger if level."""
    by_rate = jax.tree.map(lambda part: part.reshape(seeds, len(_RATES), -1), found)
    first = by_rate.fitted[:, ::-1, 0].mean(axis=0)
    best = len(_RATES) - 1 - int(np.argmax(first))
    return Tasks(*(part[:, best] for part in by_rate))


def measure(setting: Setting, norm: Any = BATCH_NORM) -> Outcome:
    """Training accuracy at the end of the first task and of the last, with and without a norm."""
    without, with_norm = beside_no_norm(_trained, setting, norm)
    (projected,) = _trained(setting, (norm,), True)
    last = _tasks(setting)
    gained = f"accuracy at the end of task {last} less task 1"
    checks = [
        Check(
            f"batch norm: {gained}",
            with_norm.fitted[:, -1] - with_norm.fitted[:, 0],
            at_least(-0.05),
            "published",
        ),
        Check(
            f"batch norm less no norm: accuracy at the end of task {last}",
            with_norm.fitted[:, -1] - without.fitted[:, -1],
            at_least(0.1),
            "published",
        ),
        Check(
            f"batch norm with NaP less without: accuracy while learning task {last}",
            projected.online[:, -1] - with_norm.online[:, -1],
            at_least(0.0),
            "published",
        ),
        Check(
            f"no norm: {gained}",
            without.fitted[:, -1] - without.fitted[:, 0],
            at_most(-0.1),
            "published",
            control=True,
        ),
    ]
    arms = {"no norm": without, "batch norm": with_norm, "batch norm and NaP": projected}
    places = np.arange(1, last + 1)
    titles = {
        "fitted": ("At the end of a task", "training accuracy"),
        "online": ("While it learns", "accuracy on batches to come"),
        "square": ("Weights", "|w|² over that at the start"),
    }
    plots = [
        Plot(title, "task", y, [Line(name, places, getattr(t, part)) for name, t in arms.items()])
        for part, (title, y) in titles.items()
    ]
    return Outcome(checks, plots)


def _setup(setting: Setting) -> str:
    rates = " or ".join(f"{rate:.2g}" for rate in _RATES)
    return (
        f"{_EXAMPLES} digits, 64-{'-'.join(map(str, _WIDTHS))}-10 ReLU, He initialisation, SGD, "
        f"batch size {_BATCH_SIZE}; {_tasks(setting)} tasks of {_steps(setting)} steps, each with "
        f"new random labels; learning rate {rates}, for each network the one that fits the first "
        f"task best; {len(_seeds(setting))} seeds. Accuracy on what is trained on, with the "
        "batch's statistics."
    )


PLASTICITY = Claim(
    name="lyle-plasticity",
    sentence="With a norm a network keeps its ability to learn new tasks, and keeps it best if the "
    "growth of its weights is undone.",
    citation="Lyle, Zheng, Khetarpal, Martens, van Hasselt, Pascanu & Dabney 2024, Normalization "
    "and Effective Learning Rates in Reinforcement Learning, NeurIPS, arXiv:2407.01800; Lyle et "
    "al. 2024, Disentangling the Causes of Plasticity Loss in Neural Networks, arXiv:2402.18762",
    setup=_setup,
    formula="training accuracy at the end of a task, and its mean over the batches of a task "
    "before the step on each; NaP: w <- w |w(0)|/|w| per neuron after each step",
    measure=measure,
    registered="2026-11-28",
    stand_ins=stand_ins(measure, must_fail=("no norm",)),
)
