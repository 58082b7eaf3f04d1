"""One training run as a value and three pure functions: begin it, advance it, look at it.

A run is decided by its study, its norm, its seed, its learning rate and what else the study has
several values of: batches are a function of (seed, step), so that a state is all there is to
continue from. Runs with the same seed begin with the same kernels and see the same batches,
whatever else they are; with another `init_std` the kernels are larger or smaller.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.study.config import Study
from experiments.study.examples import Examples
from experiments.study.measure import (
    cosine,
    gradient_noise,
    histogram,
    kernel_norms,
    typical_percentiles,
    units_last,
)
from experiments.study.model import Model, State
from experiments.study.optimizers import NUMBERS, scheduled
from experiments.study.tasks import EXAMPLE_SCORE, score_type
from experiments.study.windows import plain_steps

NOISE_BATCHES = 8
RECALIBRATION_EXAMPLES = 2048
PERCENTILE_EXAMPLES = 500
EXAMPLES_AT_ONCE = 1000

# What a seed's random numbers are for.
_WEIGHTS, _BATCHES, _NOISE, _DROPOUT, _SPLIT = range(5)

Measures = dict[str, jax.Array]


class RunState(NamedTuple):
    """Everything that a run is, between two steps; numbers only, so that it can be saved."""

    seed: jax.Array
    learning_rate: jax.Array
    swept: dict[str, jax.Array]
    """Of what the study has several values of: this run's, by field."""
    step: jax.Array
    """Updates made so far, those a frozen run no longer makes included."""
    params: Any
    collections: dict[str, Any]
    """The network's other variables, `batch_stats` for example."""
    opt_state: Any
    diverged_at: jax.Array
    """Updates made when the loss was first not finite, -1 if it never was."""


class Step(NamedTuple):
    """Inputs and results of one step, of which XLA computes those that are used."""

    loss: jax.Array
    params: Any
    """The weights before the step."""
    gradient: Any
    update: Any


class Run(NamedTuple):
    """The functions of one run; each can be jitted, and mapped over runs."""

    init: Callable[[Examples, jax.Array, jax.Array, dict[str, jax.Array]], RunState]
    """(data, seed, learning_rate, swept) -> state before the first step."""
    step: Callable[[Examples, RunState], tuple[RunState, Step]]
    """(data, state) -> state after one more step, and what the step saw and did."""
    advance: Callable[..., tuple[RunState, Measures]]
    """(data, state, plain) -> state after a window of steps, and what was measured in them. `plain`
    is from `plain_steps`; without it the window has `evaluate_every` steps."""
    evaluate: Callable[[Examples, RunState], Measures]
    """(data, state) -> what is measured at these weights."""


def make_run(study: Study, model: Model, axis_name: str | None = None) -> Run:
    """Returns a run of `study` with the network `model`.

    With an `axis_name` of `shard_map` each device along it takes its share of every batch, and all
    come to the same state. What `evaluate` does is done on every device, in whole.
    """

    def of_seed(function: Callable[..., Any]) -> Callable[..., Any]:
        def on_its_examples(data: Examples, state: RunState, *more: Any) -> Any:
            return function(data.of_seed(key_of(state.seed, _SPLIT)), state, *more)

        return on_its_examples

    return Run(
        init=partial(_init, study, model),
        step=of_seed(partial(_step, study, model, axis_name)),
        advance=of_seed(partial(_advance, study, model, axis_name)),
        evaluate=of_seed(partial(_evaluate, study, model)),
    )


def make_optimizer(
    study: Study, learning_rate: jax.Array, values: dict[str, Any]
) -> optax.GradientTransformation:
    """Makes the optimizer of `study`; a learning rate is a number like others and may be traced."""
    optimizer: Any = study.optimizer
    given = {own: values[name] for name, own in NUMBERS.items() if name in values}
    if study.weight_decay is not None:
        given = {"weight_decay": study.weight_decay} | given
    if given:
        optimizer = dataclasses.replace(optimizer, **given)
    transformation = optimizer(scheduled(learning_rate, study.schedule, study.warmup, study.steps))
    if study.clip is None:
        return transformation
    return optax.chain(optax.clip_by_global_norm(study.clip), transformation)


def _init(
    study: Study,
    model: Model,
    data: Examples,
    seed: jax.Array,
    learning_rate: jax.Array,
    swept: dict[str, jax.Array],
) -> RunState:
    state = model.init(key_of(seed, _WEIGHTS), swept)
    return RunState(
        seed,
        learning_rate,
        swept,
        step=jnp.int32(0),
        params=state.params,
        collections=state.collections,
        opt_state=make_optimizer(study, learning_rate, swept).init(state.params),
        diverged_at=jnp.int32(-1),
    )


def _step(
    study: Study, model: Model, axis_name: str | None, data: Examples, state: RunState
) -> tuple[RunState, Step]:
    key = key_of(state.seed, _BATCHES, state.step)
    batch = _draw(data, key, study.batch_size, axis_name)
    dropout = key_of(state.seed, _DROPOUT, state.step) if model.has_train else None
    how = {"axis_name": axis_name, "noise": (state.seed, state.step), "dropout": dropout}
    (loss, collections), gradient = jax.value_and_grad(_loss, argnums=1, has_aux=True)(
        model, state.params, state, batch, how
    )
    if axis_name is not None:
        loss, gradient = jax.lax.pmean((loss, gradient), axis_name)
    optimizer = make_optimizer(study, state.learning_rate, state.swept)
    update, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    after = state._replace(
        params=optax.apply_updates(state.params, update),
        collections=collections,
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


def _advance(
    study: Study,
    model: Model,
    axis_name: str | None,
    data: Examples,
    state: RunState,
    plain: Any = None,
) -> tuple[RunState, Measures]:
    if plain is None:
        plain = jnp.array(plain_steps(study.evaluate_every, study.evaluate_every))

    def sizes(tree: Any) -> jax.Array:
        return kernel_norms(model.kernels_of(tree))

    def one_step(_: Any, carry: tuple[RunState, jax.Array]) -> tuple[RunState, jax.Array]:
        state, losses = carry
        state, taken = _step(study, model, axis_name, data, state)
        return state, losses + taken.loss

    def measured_step(state: RunState, _: None) -> tuple[RunState, tuple[Any, ...]]:
        state, taken = _step(study, model, axis_name, data, state)
        ratio = sizes(taken.update) / sizes(taken.params)
        return state, (taken.loss, taken.gradient, sizes(taken.gradient), ratio)

    def block(i: jax.Array, carry: tuple[RunState, Any]) -> tuple[RunState, Any]:
        state, measures = carry
        state, losses = jax.lax.fori_loop(0, plain[i], one_step, (state, jnp.float32(0)))
        state, pair = jax.lax.scan(measured_step, state, length=2)
        pair_losses, gradients, norms, ratios = pair
        first, second = (jax.tree.map(lambda g, i=i: g[i], gradients) for i in range(2))
        new = (losses + jnp.sum(pair_losses), norms, ratios, cosine(first, second))
        return state, jax.tree.map(lambda every, one: every.at[i].set(one), measures, new)

    # One program for windows of every length: of pairs that this one lacks nothing is written.
    full = (len(plain), 2, len(model.kernels))
    measures = tuple(jnp.zeros(shape) for shape in (full[:1], full, full, full[:1]))
    is_pair = plain >= 0
    state, measures = jax.lax.fori_loop(0, jnp.sum(is_pair), block, (state, measures))
    losses, norms, ratios, cosines = measures
    pairs, steps = (
        jnp.sum(jnp.where(is_pair, each, 0)).astype(jnp.float32) for each in (1, plain + 2)
    )
    mean_norm = jnp.sum(norms, axis=(0, 1)) / (2 * pairs)
    squares = jnp.where(is_pair[:, None, None], jnp.square(norms - mean_norm[None, None]), 0)
    deviation = jnp.sqrt(jnp.sum(squares, axis=(0, 1)) / (2 * pairs - 1))
    measures = {
        "train_loss": jnp.sum(losses) / steps,
        "gradient_norm": mean_norm,
        "gradient_norm_cv": deviation / mean_norm,
        "gradient_cosine": jnp.sum(cosines) / pairs,
        "update_ratio": jnp.sum(ratios, axis=(0, 1)) / (2 * pairs),
    }
    return state, _unless_diverged(state, measures)


def _evaluate(study: Study, model: Model, data: Examples, state: RunState) -> Measures:
    # The population's statistics at these weights: those of one large batch, not an average over
    # past steps, which early in training would remember other weights and the initial (0, 1).
    some = _inputs(data, data.train_x[:RECALIBRATION_EXAMPLES])
    learnt = State(state.params, state.collections)
    population = model.of_population(learnt, some, state.swept)

    def infer(x: Any) -> tuple[jax.Array, list[jax.Array]]:
        return model.infer(population, _inputs(data, x), state.swept)

    def judge(example: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, target = example
        outputs, _ = infer(x[None])
        score = study.task.score(outputs, target[None])
        return score[0], jnp.mean(study.task.loss(outputs, target[None]))

    def measured(split: str) -> Measures:
        examples = data.split(split)
        # In pieces that stay in the cache: MNIST's test set at once takes half as long again.
        scores, losses = jax.lax.map(judge, examples, batch_size=EXAMPLES_AT_ONCE)
        return {
            f"{split}_{study.task.variable}": study.task.overall(jnp.mean(scores), examples[1]),
            f"{split}_loss": jnp.mean(losses),
            f"{split}_{EXAMPLE_SCORE}": scores.astype(score_type(study.task)),
        }

    outputs, given = infer(data.test_x[:PERCENTILE_EXAMPLES])
    given = [units_last(z) for z in given]

    def gradient(key: jax.Array) -> Any:
        batch = _draw(data, key, study.batch_size)
        how = {"dropout": key if model.has_train else None}
        return jax.grad(_loss, argnums=1, has_aux=True)(model, state.params, state, batch, how)[0]

    keys = jax.random.split(key_of(state.seed, _NOISE, state.step), NOISE_BATCHES)
    measures = {
        **(measured("validation") if data.has_validation else {}),
        **measured("test"),
        # One after the other: several kernels at once make a convolution in groups, which a CPU
        # takes many times as long for.
        "gradient_noise": gradient_noise(model.kernels_of(jax.lax.map(gradient, keys))),
        "activation_percentile": typical_percentiles(given[-1]),
        "activation_histogram": jnp.stack([histogram(z) for z in (*given, outputs)]),
    }
    return _unless_diverged(state, measures)


def _loss(
    model: Model, params: Any, state: RunState, batch: tuple[jax.Array, Any], how: dict[str, Any]
) -> tuple[jax.Array, dict[str, Any]]:
    x, targets = batch
    outputs, collections = model.train(State(params, state.collections), x, state.swept, **how)
    return jnp.mean(model.study.task.loss(outputs, targets)), collections


def _unless_diverged(state: RunState, measures: Measures) -> Measures:
    return jax.tree.map(lambda x: jnp.where(state.diverged_at < 0, x, blank(x)), measures)


def blank(like: Any) -> jax.Array:
    """Returns what stands where nothing was measured, of the type of `like`: NaN, or -1."""
    return jnp.asarray(jnp.nan if jnp.issubdtype(like.dtype, jnp.floating) else -1, like.dtype)


def key_of(seed: jax.Array, *stream: int | jax.Array) -> jax.Array:
    """Returns the key of a seed's random numbers that `stream` tells from its others."""
    key = jax.random.key(seed)
    for number in stream:
        key = jax.random.fold_in(key, number)
    return key


def _draw(
    data: Examples, key: jax.Array, batch_size: int, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array]:
    """Draws a batch with replacement: an epoch's permutation would cost as much as training.

    With an `axis_name`, this device's share of it: consecutive examples, as many as the others'.
    """
    rows = jax.random.randint(key, (batch_size,), 0, data.train_x.shape[0])
    if axis_name is not None:
        shares = rows.reshape(jax.lax.axis_size(axis_name), -1)
        rows = shares[jax.lax.axis_index(axis_name)]
    return _inputs(data, data.train_x[rows]), data.train_y[rows]


def _inputs(data: Examples, x: Any) -> jax.Array:
    if x.dtype == jnp.uint8:
        # A product for each number and not a quotient, which takes the processor several times as
        # long.
        x = x.astype(jnp.float32) * (1 / data.largest)
    return x.reshape(x.shape[0], *data.shape)
