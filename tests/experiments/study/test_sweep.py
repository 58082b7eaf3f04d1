"""Runs side by side are the runs alone: whatever the devices, the neighbours and their fate."""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import chex
import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from experiments.study import norms, sweep
from experiments.study.config import Study
from experiments.study.examples import Examples
from experiments.study.model import find_model
from experiments.study.sweep import make_mesh, make_sweep, mesh_of, place
from experiments.study.values import ConfigError
from experiments.study.windows import plain_steps
from jbn import Detached, Ghost, Standard
from jbn.linen import BatchNorm

RUNS = 6  # three learning rates, two seeds


def model_of(study, norm):
    return find_model(study, norm, (8, 8, 1), 10)


def train(
    study: Study, data: Examples, mesh: Mesh, norm=None, learning_rates=None
) -> Iterator[Any]:
    """The final state, and what was measured in two windows, of the runs that are not padding."""
    data = place(data, mesh)
    program: Any = make_sweep(study, model_of(study, norm), mesh)
    states = program.init(data)
    for rates in learning_rates or [states.learning_rate]:
        rates = jax.device_put(np.array(rates, np.float32), states.learning_rate.sharding)
        states = program.init(data)._replace(learning_rate=rates)
        measured = [program.evaluate(data, states)]
        for steps in (5, 20):
            states, window = program.advance(data, states, plain_steps(steps, 20))
            measured.append(window | program.evaluate(data, states))
        assert program.advance._cache_size() == 1  # never compiled again
        yield program.pick(jax.device_get((states, measured)))


@pytest.fixture(scope="module")
def one_device():
    return make_mesh(jax.devices()[:1])


@pytest.fixture(scope="module")
def in_turn(small, digits, one_device):
    """The small study with batch norm, on one device, its runs one after the other."""
    return next(train(small(), digits, one_device, Standard()))


def test_uneven_runs_over_devices_are_the_runs_of_one_device(small, digits, in_turn):
    assert RUNS % jax.device_count() != 0
    chex.assert_trees_all_equal(next(train(small(), digits, make_mesh(), Standard())), in_turn)


def test_runs_at_once_are_runs_in_turn(small, digits, one_device, in_turn, monkeypatch):
    monkeypatch.setattr(sweep, "over_runs", lambda platform: jax.vmap)  # as an accelerator does
    at_once = next(train(small(), digits, one_device, Standard()))
    chex.assert_trees_all_close(at_once, in_turn, rtol=2e-3, atol=1e-4)


def test_runs_are_ordered_by_learning_rate_then_seed(in_turn):
    states, _ = in_turn
    rates = np.array([0.1, 0.1, 1.0, 1.0, 3.0, 3.0], np.float32)
    np.testing.assert_array_equal(states.learning_rate, rates)
    np.testing.assert_array_equal(states.seed, [0, 7, 0, 7, 0, 7])


@pytest.mark.parametrize("devices", [1, 2, 3, 4])
def test_runs_fill_the_devices(small, digits, devices):
    study = small(seeds=(0,))
    program = make_sweep(study, model_of(study, None), make_mesh(jax.devices()[:devices]))
    states = program.init(digits)
    assert program.runs == 3
    assert len(states.seed) == -(-3 // devices) * devices
    assert set(states.learning_rate[3:].tolist()) <= {3.0}


def test_what_is_swept_makes_the_runs_of_a_study_for_each_value(small, digits):
    fields = {"seeds": (7,), "learning_rates": (0.1, 0.3)}
    swept = {"init_std": (0.3, 1.0), "momentum": (0.5, 0.9), "epsilon": (1e-3, 1.0)}
    together, _ = next(train(small(**fields, **swept), digits, make_mesh(), Standard()))
    for i, values in list(enumerate(itertools.product(*swept.values())))[1::5]:
        study = small(**fields, **dict(zip(swept, values)))
        alone, _ = next(train(study, digits, make_mesh(), Standard()))
        mine = jax.tree.map(lambda x, i=i: x[2 * i : 2 * i + 2], together)
        for name, value in zip(swept, values):
            np.testing.assert_array_equal(mine.swept[name], np.float32([value, value]))
        # A number that a program is given may be rounded at another place than one that is in it.
        chex.assert_trees_all_close(mine._replace(swept={}), alone, rtol=1e-4, atol=1e-5)
    finals = together.collections["batch_stats"]["norm_1"]["mean"]
    assert len(np.unique(np.asarray(finals), axis=0)) == 16


def test_what_is_swept_of_a_network_without_norm(small, digits):
    study = small(init_std=(0.3, 1.0), epsilon=(1e-3, 1.0))
    program = make_sweep(study, model_of(study, None), make_mesh())
    assert program.runs == 12
    assert set(program.init(digits).swept) == {"init_std"}


@pytest.mark.parametrize("norm", [None, Standard(), Ghost(3, base=Detached())], ids=str)
def test_batches_over_devices_are_the_batches_of_one_device(small, digits, one_device, norm):
    # Ghost's three divide the population that evaluation takes as one batch, and a share of six.
    fields = {"norms": {"norm": norm}, "batch_size": 24, "seeds": (0,), "learning_rates": (0.1,)}
    alone = next(train(small(**fields), digits, one_device, norm))
    study = small(**fields, data_parallel=True)
    spread = next(train(study, digits, mesh_of(study), norm))
    # Sums in another order are 1e-6 apart, and at a small learning rate stay so for forty steps.
    chex.assert_trees_all_close(spread, alone, rtol=2e-4, atol=2e-6)


@pytest.mark.long  # a test of the test above
@pytest.mark.parametrize("forgotten", ["gradients", "moments"])
def test_devices_that_do_not_meet_are_noticed(small, digits, one_device, monkeypatch, forgotten):
    fields = {"norms": {"bn": Standard()}, "seeds": (0,), "learning_rates": (0.1,)}
    alone = next(train(small(**fields), digits, one_device, Standard()))
    if forgotten == "gradients":
        monkeypatch.setattr(jax.lax, "pmean", lambda tree, axis_name: tree)
    else:
        monkeypatch.setattr(norms, "BatchNorm", lambda *a, axis_name, **b: BatchNorm(*a, **b))
    study = small(**fields, data_parallel=True)
    spread = next(train(study, digits, mesh_of(study), Standard()))
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(spread, alone, rtol=2e-4, atol=2e-6)


def test_batches_that_do_not_divide_are_refused(small):
    with pytest.raises(ConfigError, match="^batch_size=30: needs a multiple of the 4 devices"):
        mesh_of(small(batch_size=30, data_parallel=True))

    def divided(norm):
        return mesh_of(small(norms={"g": norm}, batch_size=16, data_parallel=True))

    assert divided(Ghost(4, Detached())).size == 4
    for norm in (Ghost(8), Ghost(4, Ghost(3))):
        message = r"^norms: g: with data_parallel=True each of 4 devices has 4 examples\. Ghost\("
        with pytest.raises(ConfigError, match=message):
            divided(norm)


def test_programs_serve_other_runs_without_a_compilation(small, digits, in_turn):
    mesh = make_mesh(jax.devices()[:2])
    program: Any = make_sweep(small(), model_of(small(), Standard()), mesh)
    data = place(digits, mesh)
    states, _ = program.advance(data, program.init(data), plain_steps(5, 20))
    program.evaluate(data, states)
    fewer = program.of(small(learning_rates=(3.0,), seeds=(7, 0)))
    states = fewer.init(data)
    # A run on each device, and no other is trained.
    assert states.diverged_at.tolist() == [-1, 0, 0, -1, 0, 0]
    measured = []
    for steps in (5, 20):
        states, window = fewer.advance(data, states, plain_steps(steps, 20))
        measured.append(window | fewer.evaluate(data, states))
    for function in (fewer.begin, fewer.advance, fewer.evaluate):
        assert function._cache_size() == 1
    found = fewer.pick(jax.device_get((states, measured)))
    swapped = jax.tree.map(lambda x: x[[5, 4]], (in_turn[0], in_turn[1][1:]))
    chex.assert_trees_all_equal(found, swapped)
    # Saved and restored it is the same, empty places too.
    again = fewer.freeze(fewer.spread(found[0]))
    assert again.diverged_at.tolist() == [-1, 0, 0, -1, 0, 0]
    chex.assert_trees_all_equal(fewer.pick(again), found[0])


def test_a_diverging_run_leaves_its_neighbours_bit_identical(small, digits, one_device):
    study = small(activation="relu", learning_rates=(1.0, 2.0), seeds=(0,))
    rates = [(0.1, 0.01), (0.1, 1e25)]
    calm, wild = train(study, digits, one_device, None, rates)
    assert calm[0].diverged_at.tolist() == [-1, -1]
    assert wild[0].diverged_at[0] == -1
    assert wild[0].diverged_at[1] > 0
    first = partial(jax.tree.map, lambda x: x[0])
    chex.assert_trees_all_equal(first(calm), first(wild))
    measured = {name: values[1] for name, values in wild[1][-1].items()}
    assert (measured.pop("test_example_score") == -1).all()
    assert all(np.isnan(values).all() for values in measured.values())
