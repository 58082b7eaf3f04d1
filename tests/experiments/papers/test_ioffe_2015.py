"""A short course of figure 1's network, and verdicts from courses made up for them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.claim import Setting
from experiments.papers.claims import ioffe_2015
from experiments.papers.claims.ioffe_2015 import SAME, Course, course, factor, make_task
from experiments.papers.tools.training import advance, begin, infer, pixels, unit_interval
from experiments.papers.tools.training import with_population_stats as precise
from experiments.study.data import binary, load
from jbn import Standard

TIMES = np.linspace(0, 1, 14)


def made_up(accuracy, spread, shift):
    """The same in three seeds, however the network starts."""
    percentiles = jnp.stack([-spread / 2, 0 * spread, spread / 2], axis=1)
    seen = Course(accuracy, percentiles, shift, shift / 2)
    return jax.device_get(jax.tree.map(lambda a: jnp.stack([a] * 3), seen))


PLAIN = made_up(0.1 + 0.8 * TIMES, 1 + 9 * TIMES, 1 + TIMES)
NORMED = made_up(0.9 + 0.05 * TIMES, 3 + TIMES, 0.5 + TIMES / 2)
CLAIMS = (ioffe_2015.ACCURACY, ioffe_2015.SCALE_DRIFT, ioffe_2015.MEDIAN_DRIFT)


def measured(monkeypatch, claim, without, with_norm):
    def courses(setting, norm):
        return dict.fromkeys(("the same", "each at its best"), with_norm if norm else without)

    monkeypatch.setattr(ioffe_2015, "_courses", courses)
    monkeypatch.setattr(ioffe_2015, "tuned", lambda setting, norm: SAME)
    return claim.measure(Setting())


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_verdicts(monkeypatch, claim):
    assert measured(monkeypatch, claim, PLAIN, NORMED).verdict == "reproduced"
    assert measured(monkeypatch, claim, NORMED, PLAIN).verdict == "refuted"
    assert measured(monkeypatch, claim, PLAIN, PLAIN).verdict != "reproduced"


def test_the_plateau_is_told_apart(monkeypatch):
    # All change of scale happens before the last network has left its plateau, at the fifth look.
    accuracy = np.where(np.arange(14) < 4, 0.5, 0.95)
    spread = np.where(np.arange(14) < 4, 1.0, 9.0)
    stuck = made_up(accuracy, spread, 1 + TIMES)
    found = measured(monkeypatch, ioffe_2015.SCALE_DRIFT, stuck, NORMED)
    assert found.verdict == "mixed"
    refuted = [check.quantity for check in found.checks if check.verdict == "refuted"]
    assert len(refuted) == 2
    assert all("after the plateau (from step 2500)" in quantity for quantity in refuted)


def test_the_factor_of_change():
    np.testing.assert_array_equal(factor(np.array([[2.0, 8.0, 4.0], [1.0, 1.0, 1.0]])), [4, 1])
    assert np.isnan(factor(np.ones((2, 0)))).all()


def test_a_course_tells_each_units_shift_in_its_own_spread():
    images = unit_interval(binary(load("digits")))
    task = make_task(Standard(), 0.1)
    row = jnp.uint32(0), jnp.float32(0.5)

    @jax.jit
    def inputs(images):
        state, seen = begin(task, images, *row), []
        for steps in (0, 10, 10):
            state = advance(task, images, state, steps)[0]
            x = pixels(images, images.test[:2000])
            seen.append(infer(task, precise(task, images, state), x)[1][-1])
        return seen

    seen = jax.jit(partial(course, task, 10, 2))(images, *row)
    values = [np.asarray(x, np.float64) for x in inputs(images)]
    means, stds = np.mean(values, axis=1), np.std(values, axis=1)
    moved = np.abs(np.diff(means, axis=0)) / stds[:-1]
    np.testing.assert_allclose(seen.mean_shift, moved.mean(axis=1), rtol=1e-3)
    grown = np.abs(np.diff(np.log(stds), axis=0))
    np.testing.assert_allclose(seen.std_shift, grown.mean(axis=1), rtol=1e-3)
    np.testing.assert_allclose(
        seen.percentiles[-1],
        np.median(np.percentile(values[-1], (15, 50, 85), axis=0), axis=1),
        rtol=1e-3,
        atol=1e-4,
    )
