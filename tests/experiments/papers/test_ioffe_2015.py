"""A short course of figure 1's network, and verdicts from courses made up for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.claim import Setting
from experiments.papers.claims import ioffe_2015
from experiments.papers.claims.ioffe_2015 import CONFIGS, Course
from experiments.papers.tools.mlp import MLP
from experiments.papers.tools.training import Task, unit_interval
from experiments.study.data import binary, load
from jbn import Standard


def made_up(accuracy, spread, median):
    """The same in three seeds."""
    percentiles = jnp.stack([median - spread / 2, median, median + spread / 2], axis=1)
    return jax.device_get(Course(jnp.stack([accuracy] * 3), jnp.stack([percentiles] * 3)))


TIMES = np.linspace(0, 1, 10)
WITHOUT = made_up(0.1 + 0.8 * TIMES, 1 + 9 * TIMES, 2 * TIMES)
WITH = made_up(0.9 + 0.05 * TIMES, 3 + TIMES, TIMES)
CLAIMS = (ioffe_2015.ACCURACY, ioffe_2015.SCALE_DRIFT, ioffe_2015.MEDIAN_DRIFT)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
@pytest.mark.parametrize("turned", [False, True])
def test_verdicts(monkeypatch, claim, turned):
    pair = (WITH, WITHOUT) if turned else (WITHOUT, WITH)
    found = {CONFIGS[0]: dict(zip(("without", "with batch norm"), pair))}
    monkeypatch.setattr(ioffe_2015, "_courses", lambda setting: found)
    expected = "not reproduced" if turned else "reproduced"
    assert claim.measure(Setting(quick=True)).verdict == expected


def test_a_course_has_ten_looks_at_ordered_percentiles():
    images = unit_interval(binary(load("digits")))
    normal = jax.nn.initializers.normal(0.1)
    task = Task(MLP((10, 10), jax.nn.sigmoid, normal, Standard(), epsilon=1e-3), 30)
    run = jax.jit(lambda images, *row: ioffe_2015.course(task, 10, images, *row))
    seen = run(images, jnp.uint32(0), jnp.float32(0.5))
    assert seen.accuracy.shape == (10,)
    assert seen.percentiles.shape == (10, 3)
    assert (np.diff(seen.percentiles) > 0).all()
    assert (seen.spread > seen.median).all()
    assert seen.accuracy[-1] > max(seen.accuracy[0], 0.5)
