"""Small networks trained on images, many (seed, learning rate) rows as one program.

`experiments.study.train` runs studies, and measures, saves and resumes them. A claim needs less of
that and other things: a batch of its own kind, a norm that changes from step to step, a look at the
loss around the weights.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.papers.tools.mlp import MLP, cross_entropy, in_training
from experiments.papers.tools.spread import combinations, spread_each
from experiments.study.data import Data
from experiments.study.train import key_of
from jbn import Variant

_POPULATION = 5000  # examples for the population's statistics
_BEGINNING = 256  # examples that initial weights may depend on
_AT_ONCE = 1000  # test examples, few enough to stay in the cache

# What a seed's random numbers are for.
_WEIGHTS, _BATCHES, _NORM, _TEST = range(4)


class Images(NamedTuple):
    """A data set of bytes, of which a network sees (byte - shift) / scale."""

    train: Any
    train_labels: Any
    test: Any
    test_labels: Any
    shift: Any
    scale: Any


class State(NamedTuple):
    """A network between two steps."""

    seed: jax.Array
    learning_rate: jax.Array
    step: jax.Array
    params: Any
    batch_stats: Any


class Seen(NamedTuple):
    """What a step saw before it moved the weights."""

    loss: jax.Array
    inputs: tuple[jax.Array, ...]
    """Of each hidden activation, `(batch, width)`."""


def uniformly(images: Images, key: jax.Array, batch_size: int) -> jax.Array:
    """Rows of the training set, drawn with replacement."""
    return jax.random.randint(key, (batch_size,), 0, images.train.shape[0])


class Task(NamedTuple):
    """A network and how it is trained, by SGD."""

    model: MLP
    batch_size: int = 128
    draw: Callable[[Images, jax.Array, int], jax.Array] = uniformly
    """(images, key, batch size) -> rows of the training set."""
    norm_at: Callable[[jax.Array, jax.Array], Variant] | None = None
    """(step, key) -> the norm of that step's training, in place of the model's."""
    weight_decay: float = 0.0
    """Of all kernels, added to their gradient."""


def relu_task(depth: int, norm: Any, width: int = 100, **options: Any) -> Task:
    """Hidden layers of ReLU with He's initialisation; `options` are of the task."""
    model = MLP((width,) * depth, jax.nn.relu, jax.nn.initializers.he_normal(), norm)
    return Task(model, **options)


def unit_interval(data: Data) -> Images:
    """Pixels from 0 to 1."""
    return Images(*data[:4], np.float32(0), np.float32(data.brightest))


def standardized(data: Data) -> Images:
    """Pixels with mean 0 and standard deviation 1 over the training set."""
    values, counts = np.unique(data.train_images, return_counts=True)
    mean = np.average(values, weights=counts)
    deviation = np.sqrt(np.average((values - mean) ** 2, weights=counts))
    return Images(*data[:4], np.float32(mean), np.float32(deviation))


def hold_out(images: Images, count: int = 10_000) -> Images:
    """The last `count` training images in the test set's place: for choices, made before a test."""
    return images._replace(
        train=images.train[:-count],
        train_labels=images.train_labels[:-count],
        test=images.train[-count:],
        test_labels=images.train_labels[-count:],
    )


def begin(task: Task, images: Images, seed: jax.Array, learning_rate: jax.Array) -> State:
    """Before the first step. Tasks that differ in their norm begin with the same kernels."""
    x = pixels(images, images.train[:: max(images.train.shape[0] // _BEGINNING, 1)])
    variables = task.model.init(key_of(seed, _WEIGHTS), x, use_running_average=False)
    return State(
        seed, learning_rate, jnp.int32(0), variables["params"], variables.get("batch_stats", {})
    )


def next_loss(
    task: Task, images: Images, state: State
) -> Callable[[Any], tuple[jax.Array, tuple[Any, tuple[jax.Array, ...]]]]:
    """The loss of the next step's batch as a function of the weights.

    With it come the running statistics and the activations' inputs.
    """
    rows = task.draw(images, key_of(state.seed, _BATCHES, state.step), task.batch_size)
    x, labels = pixels(images, images.train[rows]), images.train_labels[rows]
    model = task.model
    if task.norm_at is not None:
        model = model.clone(norm=task.norm_at(state.step, key_of(state.seed, _NORM, state.step)))

    def loss(params: Any) -> tuple[jax.Array, tuple[Any, tuple[jax.Array, ...]]]:
        scores, inputs, batch_stats = in_training(model, params, state.batch_stats, x)
        return cross_entropy(scores, labels), (batch_stats, inputs)

    return loss


def step(task: Task, images: Images, state: State) -> tuple[State, Seen]:
    """One more step."""
    loss_fn = next_loss(task, images, state)
    (loss, (batch_stats, inputs)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
        state.params
    )
    if task.weight_decay:
        gradient = jax.tree_util.tree_map_with_path(
            lambda path, g, w: g + task.weight_decay * w if path[-1].key == "kernel" else g,
            gradient,
            state.params,
        )
    optimizer = optax.sgd(state.learning_rate)
    update, _ = optimizer.update(gradient, optimizer.init(state.params))
    after = state._replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, update),
        batch_stats=batch_stats,
    )
    return after, Seen(loss, inputs)


def advance(task: Task, images: Images, state: State, steps: int) -> tuple[State, jax.Array]:
    """So many more steps, and the loss at each."""

    def one(state: State, _: None) -> tuple[State, jax.Array]:
        state, seen = step(task, images, state)
        return state, seen.loss

    return jax.lax.scan(one, state, length=steps)


def with_population_stats(task: Task, images: Images, state: State) -> State:
    """PreciseBN: running statistics of the population at these weights, not at those of before."""
    stride = max(images.train.shape[0] // _POPULATION, 1)
    x = pixels(images, images.train[::stride])
    _, _, batch_stats = in_training(task.model, state.params, state.batch_stats, x, momentum=0.0)
    return state._replace(batch_stats=batch_stats)


def infer(task: Task, state: State, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Scores and the activations' inputs, with running statistics."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return cast(Any, task.model.apply(variables, x, use_running_average=True))


def unchanged(x: jax.Array, label: jax.Array, key: jax.Array) -> jax.Array:
    """One example as it is."""
    return x


def accuracy(
    task: Task,
    images: Images,
    state: State,
    change: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] = unchanged,
) -> jax.Array:
    """On the test set, with running statistics.

    Args:
        change: (pixels, label, key) of one example -> the pixels that the network is shown.
    """

    def correct(example: tuple[jax.Array, ...]) -> jax.Array:
        image, label, number = example
        x = change(pixels(images, image), label, key_of(state.seed, _TEST, number))
        scores, _ = infer(task, state, x[None])
        return jnp.argmax(scores[0]) == label

    examples = (images.test, images.test_labels, jnp.arange(images.test.shape[0]))
    return jnp.mean(jax.lax.map(correct, examples, batch_size=_AT_ONCE))


def trained_accuracy(
    task: Task, steps: int, images: Images, seed: jax.Array, learning_rate: jax.Array
) -> jax.Array:
    """That of a network trained so long, with the population's statistics."""
    state, _ = advance(task, images, begin(task, images, seed, learning_rate), steps)
    return accuracy(task, images, with_population_stats(task, images, state))


def accuracy_by_rate(
    tasks: Sequence[Task], steps: int, images: Images, seeds: np.ndarray, rates: np.ndarray
) -> list[np.ndarray]:
    """`trained_accuracy` of each task from every seed at every rate: `(seeds, rates)`."""
    runs = {i: partial(trained_accuracy, task, steps) for i, task in enumerate(tasks)}
    found = spread_each(runs, *combinations(seeds, rates), given=(images,))
    return [found[i].reshape(len(seeds), -1) for i in runs]


def pixels(images: Images, raw: Any) -> jax.Array:
    return (raw.astype(jnp.float32) - images.shift) / images.scale
