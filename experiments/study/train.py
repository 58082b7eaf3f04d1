"""One training run as a value and three pure functions: begin it, advance it, look at it.

A run is decided by its study, its norm, its seed, its learning rate and what else the study has
several values of: batches are a function of (seed, step), so that a state is all there is to
continue from. Runs with the same seed begin with the same kernels and see the same batches,
whatever else they are; with another `init_std` the kernels are larger or smaller.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.study.config import Study
from experiments.study.data import Data
from experiments.study.measure import (
    cosine,
    gradient_noise,
    histogram,
    kernel_norms,
    typical_percentiles,
)
from experiments.study.models import (
    MLP,
    cross_entropy,
    fold_in,
    in_training,
    layer_names,
    make_model,
)
from jbn import Variant

# Measuring a step costs as much as taking it: two successive steps in fifty are measured, and two
# such pairs at least between evaluations.
STEPS_PER_PAIR = 50
FEWEST_PAIRS = 2
NOISE_BATCHES = 8
RECALIBRATION_EXAMPLES = 2048
PERCENTILE_EXAMPLES = 500
EXAMPLES_AT_ONCE = 1000

# What a seed's random numbers are for.
_WEIGHTS, _BATCHES, _NOISE = range(3)

Measures = dict[str, jax.Array]
_Make = Callable[..., MLP]
"""The network, of the values that are swept."""


class RunState(NamedTuple):
    """Everything that a run is, between two steps; numbers only, so that it can be saved."""

    seed: jax.Array
    learning_rate: jax.Array
    swept: dict[str, jax.Array]
    """Of what the study has several values of: this run's, by field."""
    step: jax.Array
    """Updates made so far, those a frozen run no longer makes included."""
    params: Any
    batch_stats: Any
    opt_state: Any
    diverged_at: jax.Array
    """Updates made when the loss was first not finite, -1 if it never was."""


class Step(NamedTuple):
    """What one step saw and did; XLA computes of it what is used."""

    loss: jax.Array
    params: Any
    """The weights before the step."""
    gradient: Any
    update: Any


class Run(NamedTuple):
    """The functions of one run; each can be jitted, and mapped over runs."""

    init: Callable[[Data, jax.Array, jax.Array, dict[str, jax.Array]], RunState]
    """(data, seed, learning_rate, swept) -> state before the first step."""
    step: Callable[[Data, RunState], tuple[RunState, Step]]
    """(data, state) -> state after one more step, and what the step saw and did."""
    advance: Callable[[Data, RunState], tuple[RunState, Measures]]
    """(data, state) -> state after `evaluate_every` more steps, and what was measured in them."""
    evaluate: Callable[[Data, RunState], Measures]
    """(data, state) -> what is measured at these weights."""


def make_run(study: Study, norm: Variant | None, axis_name: str | None = None) -> Run:
    """A run of `study`'s network with `norm`.

    With an `axis_name` of `shard_map` each device along it takes its share of every batch, and all
    come to the same state. What `evaluate` does is done on every device, in whole.
    """
    make = partial(make_model, study, norm)
    inference = None if norm is None else norm.population()
    spread = partial(make, axis_name)
    return Run(
        init=partial(_init, study, make),
        step=partial(_step, study, spread),
        advance=partial(_advance, study, spread),
        evaluate=partial(_evaluate, study, make, partial(make_model, study, inference)),
    )


def make_optimizer(study: Study, learning_rate: jax.Array) -> optax.GradientTransformation:
    """The optimizer of `study`; a learning rate is a number like any other and may be traced."""
    if study.schedule == "cosine":
        decay = optax.cosine_decay_schedule(1.0, study.steps)
        rate: Any = lambda count: learning_rate * decay(count)  # noqa: E731
    else:
        rate = learning_rate
    match study.optimizer:
        case "sgd":
            return optax.sgd(rate)
        case "momentum":
            return optax.sgd(rate, momentum=0.9)
        case "adam":
            return optax.adam(rate)


def _init(
    study: Study,
    make: _Make,
    data: Data,
    seed: jax.Array,
    learning_rate: jax.Array,
    swept: dict[str, jax.Array],
) -> RunState:
    batch = jnp.zeros((study.batch_size, data.train_images.shape[1]))
    variables = make(**swept).init(key_of(seed, _WEIGHTS), batch, use_running_average=False)
    return RunState(
        seed,
        learning_rate,
        swept,
        step=jnp.int32(0),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=make_optimizer(study, learning_rate).init(variables["params"]),
        diverged_at=jnp.int32(-1),
    )


def _step(study: Study, make: _Make, data: Data, state: RunState) -> tuple[RunState, Step]:
    model = make(**state.swept)
    key = key_of(state.seed, _BATCHES, state.step)
    batch = _draw(data, key, study.batch_size, model.axis_name)
    if model.norm is not None:  # noise is another at each step, and of each seed
        model = model.clone(norm=fold_in(fold_in(model.norm, state.seed), state.step))
    (loss, batch_stats), gradient = jax.value_and_grad(_loss, argnums=1, has_aux=True)(
        model, state.params, state.batch_stats, *batch
    )
    if model.axis_name is not None:
        loss, gradient = jax.lax.pmean((loss, gradient), model.axis_name)
    optimizer = make_optimizer(study, state.learning_rate)
    update, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    after = state._replace(
        params=optax.apply_updates(state.params, update),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    # A run whose loss is not finite stays as it was, and its neighbours go on.
    running, finite = state.diverged_at < 0, jnp.isfinite(loss)
    after = jax.tree.map(lambda new, old: jnp.where(running & finite, new, old), after, state)
    after = after._replace(
        step=state.step + 1,
        diverged_at=jnp.where(running & ~finite, state.step, state.diverged_at),
    )
    return after, Step(loss, state.params, gradient, update)


def _advance(study: Study, make: _Make, data: Data, state: RunState) -> tuple[RunState, Measures]:
    layers = layer_names(study)

    def one_step(_: Any, carry: tuple[RunState, jax.Array]) -> tuple[RunState, jax.Array]:
        state, losses = carry
        state, taken = _step(study, make, data, state)
        return state, losses + taken.loss

    def measured_step(state: RunState, _: None) -> tuple[RunState, tuple[Any, ...]]:
        state, taken = _step(study, make, data, state)
        ratio = kernel_norms(taken.update, layers) / kernel_norms(taken.params, layers)
        return state, (taken.loss, taken.gradient, kernel_norms(taken.gradient, layers), ratio)

    def block(state: RunState, plain_steps: jax.Array) -> tuple[RunState, tuple[jax.Array, ...]]:
        state, losses = jax.lax.fori_loop(0, plain_steps, one_step, (state, jnp.float32(0)))
        state, pair = jax.lax.scan(measured_step, state, length=2)
        pair_losses, gradients, norms, ratios = pair
        first, second = (jax.tree.map(lambda g, i=i: g[i], gradients) for i in range(2))
        return state, (losses + jnp.sum(pair_losses), norms, ratios, cosine(first, second))

    blocks = jnp.array(_plain_steps(study.evaluate_every))
    state, (losses, norms, ratios, cosines) = jax.lax.scan(block, state, blocks)
    mean_norm = jnp.mean(norms, axis=(0, 1))
    measures = {
        "train_loss": jnp.sum(losses) / study.evaluate_every,
        "gradient_norm": mean_norm,
        "gradient_norm_cv": jnp.std(norms, axis=(0, 1), ddof=1) / mean_norm,
        "gradient_cosine": jnp.mean(cosines),
        "update_ratio": jnp.mean(ratios, axis=(0, 1)),
    }
    return state, _unless_diverged(state, measures)


def _evaluate(
    study: Study, make: _Make, make_inferring: _Make, data: Data, state: RunState
) -> Measures:
    model, inferring = make(**state.swept), make_inferring(**state.swept)
    # The population's statistics at these weights: those of one large batch, not an average over
    # past steps, which early in training would remember other weights and the initial (0, 1).
    some = _pixels(data, data.train_images[:RECALIBRATION_EXAMPLES])
    _, _, batch_stats = in_training(inferring, state.params, state.batch_stats, some, momentum=0.0)
    variables = {"params": state.params, "batch_stats": batch_stats}

    def infer(images: Any) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        pixels = _pixels(data, images)
        return cast(Any, inferring.apply(variables, pixels, use_running_average=True))

    def judge(example: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        image, label = example
        (scores, _) = infer(image[None])
        return jnp.argmax(scores[0]) == label, cross_entropy(scores, label[None])

    # In pieces that stay in the cache: all of MNIST's test set at once takes half as long again.
    correct, losses = jax.lax.map(
        judge, (data.test_images, data.test_labels), batch_size=EXAMPLES_AT_ONCE
    )
    scores, inputs = infer(data.test_images[:PERCENTILE_EXAMPLES])

    def gradient(key: jax.Array) -> Any:
        batch = _draw(data, key, study.batch_size)
        return jax.grad(_loss, argnums=1, has_aux=True)(
            model, state.params, state.batch_stats, *batch
        )[0]

    keys = jax.random.split(key_of(state.seed, _NOISE, state.step), NOISE_BATCHES)
    measures = {
        "test_accuracy": jnp.mean(correct),
        "test_loss": jnp.mean(losses),
        "gradient_noise": gradient_noise(jax.vmap(gradient)(keys), layer_names(study)),
        "activation_percentile": typical_percentiles(inputs[-1]),
        "activation_histogram": jnp.stack([histogram(z) for z in (*inputs, scores)]),
    }
    return _unless_diverged(state, measures)


def _loss(
    model: MLP, params: Any, batch_stats: Any, images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, Any]:
    scores, _, batch_stats = in_training(model, params, batch_stats, images)
    return cross_entropy(scores, labels), batch_stats


def _unless_diverged(state: RunState, measures: Measures) -> Measures:
    return jax.tree.map(lambda x: jnp.where(state.diverged_at < 0, x, jnp.nan), measures)


def _plain_steps(window: int) -> np.ndarray:
    """How many steps go before each measured pair, so that pairs spread evenly over a window."""
    pairs = min(max(window // STEPS_PER_PAIR, FEWEST_PAIRS), window // 2)
    ends = np.linspace(0, window - 2 * pairs, pairs + 1).astype(np.int32)
    return np.diff(ends)


def key_of(seed: jax.Array, *stream: int | jax.Array) -> jax.Array:
    """The key of a seed's random numbers that `stream` tells from its others."""
    key = jax.random.key(seed)
    for number in stream:
        key = jax.random.fold_in(key, number)
    return key


def _draw(
    data: Data, key: jax.Array, batch_size: int, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array]:
    """A batch drawn with replacement: an epoch's permutation would cost as much as training.

    With an `axis_name`, this device's share of it: consecutive examples, as many as the others'.
    """
    rows = jax.random.randint(key, (batch_size,), 0, data.train_images.shape[0])
    if axis_name is not None:
        shares = rows.reshape(jax.lax.axis_size(axis_name), -1)
        rows = shares[jax.lax.axis_index(axis_name)]
    return _pixels(data, data.train_images[rows]), data.train_labels[rows]


def _pixels(data: Data, images: Any) -> jax.Array:
    # A product for each pixel and not a quotient, which takes the processor several times as long.
    return images.astype(jnp.float32) * (1 / data.brightest)
