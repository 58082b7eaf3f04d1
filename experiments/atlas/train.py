"""Training of one program of the atlas: all its learning rates, initial scales and seeds."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.atlas import grid
from experiments.papers.tools.mlp import MLP, cross_entropy, in_training
from experiments.papers.tools.spread import combinations, spread
from experiments.study.data import load
from experiments.study.norms import is_variant
from experiments.study.train import key_of

TEST = 360  # of the 1797 digits, drawn anew by each seed
CHANCE = 0.1
_SPLIT, _WEIGHTS, _BATCHES = range(3)


class Ends(NamedTuple):
    """Accuracies after training; of a run whose weights are not finite, that of guessing."""

    test: Any
    """At inference, with the statistics of all training images at the last weights."""
    test_running: Any
    """At inference, with the running averages."""
    train: Any
    """On the training images, as `test`."""
    train_batch: Any
    """On the training images in batches as they are trained on, with their own statistics."""


class Digits(NamedTuple):
    x: Any
    labels: Any


def run_all(program: grid.Program) -> Ends:
    """Trains every setting of `program`; arrays `(learning rates, init scales, seeds)`."""
    data = load("digits")
    images = np.concatenate([data.train_images, data.test_images])
    x = images.reshape(len(images), -1).astype(np.float32) / np.float32(data.brightest)
    digits = Digits(x, np.concatenate([data.train_labels, data.test_labels]))
    values: list[np.ndarray] = [
        np.array(grid.LEARNING_RATES, np.float32),
        np.array(grid.INIT_SCALES, np.float32),
        np.arange(grid.SEEDS, dtype=np.uint32),
    ]
    ends = spread(partial(run, program), *combinations(*values), given=(digits,))
    return Ends(*(end.reshape([len(each) for each in values]) for end in ends))


def run(
    program: grid.Program,
    digits: Digits,
    learning_rate: jax.Array,
    init_scale: jax.Array,
    seed: jax.Array,
) -> Ends:
    """Trains one network by SGD on its own split of the digits."""
    order = jax.random.permutation(key_of(seed, _SPLIT), digits.x.shape[0])
    train, test = (
        Digits(digits.x[rows], digits.labels[rows]) for rows in (order[TEST:], order[:TEST])
    )
    model = _model(program, init_scale)
    empty = model.init(key_of(seed, _WEIGHTS), train.x[:2], use_running_average=True)
    optimizer = optax.sgd(learning_rate)

    def step(carry: tuple[Any, Any], number: jax.Array) -> tuple[tuple[Any, Any], None]:
        params, stats = carry
        key = key_of(seed, _BATCHES, number)
        rows = jax.random.randint(key, (program.batch_size,), 0, train.x.shape[0])

        def loss(params: Any) -> tuple[jax.Array, Any]:
            scores, _, after = in_training(model, params, stats, train.x[rows])
            return cross_entropy(scores, train.labels[rows]), after

        gradient, stats = jax.grad(loss, has_aux=True)(params)
        update, _ = optimizer.update(gradient, optimizer.init(params))
        return (optax.apply_updates(params, update), stats), None

    begun = (empty["params"], empty.get("batch_stats", {}))
    (params, stats), _ = jax.lax.scan(step, begun, jnp.arange(grid.STEPS))
    return _ends(program, model, params, stats, train, test)


def _model(program: grid.Program, init_scale: jax.Array) -> MLP:
    activation: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        "relu": (jax.nn.relu, jax.nn.initializers.he_normal()),
        "sigmoid": (jax.nn.sigmoid, jax.nn.initializers.lecun_normal()),
    }
    function, init = activation[program.activation]

    def scaled(*arguments: Any, **options: Any) -> jax.Array:
        return init_scale * init(*arguments, **options)

    return MLP((grid.WIDTH,) * program.depth, function, scaled, grid.NORMS[program.norm])


def _ends(
    program: grid.Program, model: MLP, params: Any, stats: Any, train: Digits, test: Digits
) -> Ends:
    as_it_infers = model
    if is_variant(model.norm):
        as_it_infers = model.clone(norm=model.norm.population())
    _, _, population = in_training(as_it_infers, params, stats, train.x, momentum=0.0)

    def infer(stats: Any, x: jax.Array) -> jax.Array:
        variables = {"params": params, "batch_stats": stats}
        scores, _ = as_it_infers.apply(variables, x, use_running_average=True)
        return scores

    def of_batch(x: jax.Array) -> jax.Array:
        return in_training(model, params, stats, x)[0]

    whole = train.x.shape[0] // program.batch_size * program.batch_size
    batches = train.x[:whole].reshape(-1, program.batch_size, train.x.shape[1])
    scores = jax.lax.map(of_batch, batches).reshape(whole, -1)
    ends = Ends(
        _accuracy(infer(population, test.x), test.labels),
        _accuracy(infer(stats, test.x), test.labels),
        _accuracy(infer(population, train.x), train.labels),
        _accuracy(scores, train.labels[:whole]),
    )
    finite = jnp.all(jnp.stack([jnp.isfinite(p).all() for p in jax.tree.leaves(params)]))
    return Ends(*(jnp.where(finite, end, CHANCE) for end in ends))


def _accuracy(scores: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(jnp.argmax(scores, axis=1) == labels)
