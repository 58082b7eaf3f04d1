"""A run against the same run written out: plain loops, numpy where it can be."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.study import train
from experiments.study.examples import Examples
from experiments.study.measure import BIN_EDGES
from experiments.study.model import find_model
from experiments.study.train import make_optimizer, make_run
from experiments.study.windows import evaluation_steps, plain_steps
from jbn import Ghost, Noisy, Renorm, Running, Standard

NORMS = {"no norm": None, "batch norm": Standard()}
LAYERS = ["hidden_1", "hidden_2", "output"]


def forward(params, x, stats=None):
    """Class scores and inputs of each hidden activation; batch statistics without `stats`."""
    inputs = []
    for i in (1, 2):
        z = x @ params[f"hidden_{i}"]["kernel"].T
        if f"norm_{i}" in params:
            mean, var = (z.mean(0), z.var(0)) if stats is None else stats[i - 1]
            norm = params[f"norm_{i}"]
            z = (z - mean[None]) / jnp.sqrt(var + 1e-5)[None] * norm["scale"][None]
            z = z + norm["bias"][None]
        else:
            z = z + params[f"hidden_{i}"]["bias"][None]
        inputs.append(z)
        x = jax.nn.sigmoid(z)
    return x @ params["output"]["kernel"].T + params["output"]["bias"][None], inputs


def loss(params, x, y):
    scores, _ = forward(params, x)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(scores), y[:, None], axis=1))


loss_and_gradient = jax.jit(jax.value_and_grad(loss))


def batch(data: Examples, seed: int, stream: int, *path: int, size: int = 16):
    key = jax.random.fold_in(jax.random.key(seed), stream)
    for number in path:
        key = jax.random.fold_in(key, number)
    rows = np.asarray(jax.random.randint(key, (size,), 0, len(data.train_x)))
    return rows


def images(data: Examples, rows) -> tuple[jax.Array, jax.Array]:
    return jnp.array(data.train_x[rows] / 16, jnp.float32), jnp.array(data.train_y[rows])


def model_of(study, norm):
    return find_model(study, norm, (8, 8, 1), 10)


def begin(study, norm, data, rate=1.0, seed=7):
    run = make_run(study, model_of(study, norm))
    return run, run.init(data, jnp.uint32(seed), jnp.float32(rate), {})


@pytest.fixture(scope="session", params=NORMS.values(), ids=NORMS)
def trained(request, small, digits):
    """A run of the small study, compiled once, its first state and what one advance makes of it."""
    run, state = begin(small(), request.param, digits)
    run = run._replace(evaluate=jax.jit(run.evaluate))
    return run, state, jax.jit(run.advance)(digits, state)


def by_hand(data, params, rate, steps, seed=7, start=0):
    """(loss, params, gradient, update) of each SGD step from `params`."""
    taken = []
    for step in range(start, start + steps):
        value, gradient = loss_and_gradient(params, *images(data, batch(data, seed, 1, step)))
        update = jax.tree.map(lambda g: -rate * g, gradient)
        taken.append((float(value), params, gradient, update))
        params = optax.apply_updates(params, update)
    return taken, params


def norm_of(tree, layer):
    return np.linalg.norm(tree[layer]["kernel"])


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)


def test_a_window_is_what_a_plain_loop_measures(trained, digits):
    _, state, (after, measured) = trained
    taken, params = by_hand(digits, state.params, 1.0, 20)

    chex.assert_trees_all_close(after.params, params, rtol=1e-4, atol=1e-5)
    assert int(after.step) == 20
    assert measured["train_loss"] == pytest.approx(np.mean([t[0] for t in taken]), rel=1e-5)
    pairs = [(taken[a], taken[a + 1]) for a in (8, 18)]  # the last two of every ten steps
    each = [step for pair in pairs for step in pair]
    for i, layer in enumerate(LAYERS):
        norms = [norm_of(gradient, layer) for _, _, gradient, _ in each]
        ratios = [norm_of(update, layer) / norm_of(p, layer) for _, p, _, update in each]
        assert measured["gradient_norm"][i] == pytest.approx(np.mean(norms), rel=1e-3)
        cv = np.std(norms, ddof=1) / np.mean(norms)
        assert measured["gradient_norm_cv"][i] == pytest.approx(cv, rel=1e-2)
        assert measured["update_ratio"][i] == pytest.approx(np.mean(ratios), rel=1e-3)
    cosines = []
    for (_, _, g, _), (_, _, h, _) in pairs:
        cosines.append(flat(g) @ flat(h) / np.linalg.norm(flat(g)) / np.linalg.norm(flat(h)))
    assert measured["gradient_cosine"] == pytest.approx(np.mean(cosines), rel=1e-3, abs=1e-5)


def test_a_shorter_window_is_the_beginning_of_a_longer_one(trained, digits):
    run, state, _ = trained
    advance, evaluations = jax.jit(run.advance), evaluation_steps(20, 20)
    for window in np.diff(evaluations).tolist():
        begun = int(state.step)
        taken, _ = by_hand(digits, state.params, 1.0, window, start=begun)
        state, measured = advance(digits, state, plain_steps(window, 20))
        assert int(state.step) == begun + window
        assert measured["train_loss"] == pytest.approx(np.mean([t[0] for t in taken]), rel=1e-4)
        pairs = {2: (0, 1), 3: (1, 2), 5: (0, 1, 3, 4), 10: (3, 4, 8, 9)}[window]
        norms = [norm_of(taken[at][2], "output") for at in pairs]
        assert measured["gradient_norm"][2] == pytest.approx(np.mean(norms), rel=1e-3)
        cv = np.std(norms, ddof=1) / np.mean(norms)
        assert measured["gradient_norm_cv"][2] == pytest.approx(cv, rel=1e-2)
    chex.assert_trees_all_close(state.params, trained[2][0].params, rtol=1e-4, atol=1e-5)


def population(data: Examples, params) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean and variance of each hidden layer's inputs to its norm, over all training images."""
    x, stats = jnp.array(data.train_x[:2048] / 16, jnp.float32), []
    for i in (1, 2):
        z = x @ params[f"hidden_{i}"]["kernel"].T
        stats.append((z.mean(0), z.var(0)))
        norm = params[f"norm_{i}"]
        y = (z - z.mean(0)[None]) / jnp.sqrt(z.var(0) + 1e-5)[None]
        x = jax.nn.sigmoid(y * norm["scale"][None] + norm["bias"][None])
    return stats


def test_an_evaluation_uses_population_statistics(trained, digits):
    run, _, (state, _) = trained
    measured = run.evaluate(digits, state)

    stats = population(digits, state.params) if "norm_1" in state.params else None
    test_images = jnp.array(digits.test_x / 16, jnp.float32)
    scores, inputs = forward(state.params, test_images, stats)
    right = np.argmax(np.asarray(scores), axis=1) == digits.test_y
    assert measured["test_accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    np.testing.assert_array_equal(measured["test_example_score"], right)
    log_p = np.asarray(jax.nn.log_softmax(scores))
    expected = -log_p[np.arange(360), digits.test_y].mean()
    assert measured["test_loss"] == pytest.approx(expected, rel=1e-4)
    percentiles = np.median(np.percentile(inputs[-1], [15, 50, 85], axis=0), axis=1)
    np.testing.assert_allclose(measured["activation_percentile"], percentiles, rtol=1e-3, atol=1e-4)
    for histogram, z in zip(measured["activation_histogram"], (*inputs, scores), strict=True):
        counts, _ = np.histogram(z, BIN_EDGES)
        np.testing.assert_allclose(histogram, counts / z.size, atol=2e-3)


def test_gradient_noise_is_over_batches_at_the_same_weights(trained, digits):
    run, state, _ = trained
    measured = run.evaluate(digits, state)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), 2), 0)
    gradients = []
    for one in jax.random.split(key, train.NOISE_BATCHES):
        rows = np.asarray(jax.random.randint(one, (16,), 0, 1437))
        gradients.append(loss_and_gradient(state.params, *images(digits, rows))[1])
    for i, layer in enumerate(LAYERS):
        each = np.stack([np.asarray(g[layer]["kernel"], np.float64) for g in gradients])
        mean = each.mean(0)
        noise = np.sqrt(np.mean([((g - mean) ** 2).sum() for g in each])) / np.linalg.norm(mean)
        assert measured["gradient_noise"][i] == pytest.approx(noise, rel=1e-3)


def test_a_run_whose_loss_is_not_finite_is_frozen_and_marked(small, digits):
    study = small(activation="relu")
    run, state = begin(study, None, digits, rate=1e25)
    step, steps = jax.jit(run.step), 0
    frozen = state
    while np.isfinite((taken := step(digits, frozen))[1].loss):
        frozen, steps = taken[0], steps + 1
    assert 0 < steps < 20
    advance = jax.jit(run.advance)
    after, measured = advance(digits, state)
    chex.assert_trees_all_equal(after.params, frozen.params)
    assert int(after.diverged_at) == steps
    assert int(after.step) == 20
    chex.assert_tree_all_finite(after.params)
    for values in measured.values():
        assert np.isnan(values).all()
    again, _ = advance(digits, after)
    chex.assert_trees_all_equal(again.params, after.params)
    assert int(again.diverged_at) == steps
    measured = jax.jit(run.evaluate)(digits, again)
    assert (measured.pop("test_example_score") == -1).all()
    for values in measured.values():
        assert np.isnan(values).all()


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@jax.numpy_dtype_promotion("standard")  # optax mixes types
def test_optimizers_are_optax_at_a_traced_rate(small, optimizer, schedule):
    steps = 10
    rate = 0.3 if schedule == "constant" else optax.cosine_decay_schedule(0.3, steps)
    expected = {
        "sgd": optax.sgd(rate),
        "momentum": optax.sgd(rate, momentum=0.9),
        "adam": optax.adam(rate),
    }[optimizer]
    study = small(optimizer=optimizer, schedule=schedule, steps=steps, evaluate_every=2)

    @jax.jit
    def descend(rate):
        x, state = jnp.float32(1), make_optimizer(study, rate, {}).init(jnp.float32(1))
        for _ in range(steps):
            update, state = make_optimizer(study, rate, {}).update(jnp.cos(x), state, x)
            x = x + update
        return x

    x, state = jnp.float32(1), expected.init(jnp.float32(1))
    for _ in range(steps):
        update, state = expected.update(jnp.cos(x), state, x)
        x = x + update
    assert float(descend(jnp.float32(0.3))) == pytest.approx(float(x), rel=1e-5)


def test_norms_and_rates_share_initial_kernels_and_batches(small, digits):
    _, plain = begin(small(), None, digits, rate=0.1)
    _, normed = begin(small(), Standard(), digits, rate=3.0)
    _, other = begin(small(), None, digits, seed=8)
    for layer in LAYERS:
        chex.assert_trees_all_equal(plain.params[layer]["kernel"], normed.params[layer]["kernel"])
        assert not np.allclose(plain.params[layer]["kernel"], other.params[layer]["kernel"])


def test_noise_is_of_the_step_and_of_the_seed(small, digits, monkeypatch):
    """The same weights, batch and key of the study: only the noise can tell losses apart."""
    batch = jnp.asarray(digits.train_x[:64] / np.float32(16)), digits.train_y[:64]
    monkeypatch.setattr(train, "_draw", lambda *_: batch)
    run = make_run(small(), model_of(small(), Noisy(jax.random.key(0))))
    start = run.init(digits, jnp.uint32(0), jnp.float32(0.1), {})
    here, again, later, other = (
        float(run.step(digits, start._replace(**changed))[1].loss)
        for changed in ({}, {}, {"step": start.step + 1}, {"seed": start.seed + 1})
    )
    assert here == again
    assert abs(here - later) > 1e-4
    assert abs(here - other) > 1e-4


@pytest.fixture(scope="session")
def of_479(small, digits):
    """A state of a study with larger batches, and what an evaluation measures there."""
    run = make_run(small(batch_size=479), model_of(small(batch_size=479), Standard()))
    state = run.init(digits, jnp.uint32(0), jnp.float32(0.1), {})
    return state, jax.jit(run.evaluate)(digits, state)


@pytest.mark.parametrize(
    "norm",
    [Noisy(jax.random.key(0)), Running(), Renorm(), Ghost(479)],
    ids=lambda n: type(n).__name__,
)
def test_an_evaluation_is_as_inference_will_be(small, digits, of_479, norm):
    """Not of what training does to a batch: with noise, old statistics or groups."""
    state, standard = of_479
    study = small(batch_size=479)
    seen = jax.jit(make_run(study, model_of(study, norm)).evaluate)(digits, state)
    for measure in ("test_loss", "activation_percentile"):
        chex.assert_trees_all_close(seen[measure], standard[measure], rtol=1e-5, atol=1e-5)
