"""Projection of weights, accuracy of scores that are none, and whose rate is chosen."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claims import lyle_2024
from experiments.papers.claims.lyle_2024 import Tasks, at_best_rate, correct, project


def test_projection_gives_each_neuron_its_first_length():
    rng = np.random.default_rng(0)
    start, moved = (
        {
            "hidden_1": {"kernel": jnp.asarray(rng.normal(size=(3, 5)))},  # (units, inputs)
            "output": {"kernel": jnp.asarray(rng.normal(size=(2, 3)))},
        }
        for _ in range(2)
    )
    found = project(moved, start)
    w0, w, projected = (np.asarray(p["hidden_1"]["kernel"]) for p in (start, moved, found))
    np.testing.assert_allclose(
        np.linalg.norm(projected, axis=1), np.linalg.norm(w0, axis=1), rtol=1e-6
    )
    cosines = (projected * w).sum(1) / np.linalg.norm(projected, axis=1) / np.linalg.norm(w, axis=1)
    np.testing.assert_allclose(cosines, 1, rtol=1e-6)
    np.testing.assert_array_equal(found["output"]["kernel"], moved["output"]["kernel"])


def test_scores_that_are_no_numbers_are_wrong():
    nan = jnp.nan
    scores = jnp.array([[1.0, 0.0], [0.0, 1.0], [nan, nan], [1.0, 0.0]])
    assert correct(scores, jnp.array([0, 1, 0, 1])) == 0.5


def test_the_rate_is_that_which_fits_the_first_task_best():
    fitted = np.zeros((2, len(lyle_2024._RATES), 3))
    fitted[:, 0] = [0.9, 0.1, 0.1]
    fitted[:, 1] = [0.8, 1.0, 1.0]
    flat = jax.tree.map(lambda x: x.reshape(-1, 3), Tasks(fitted, fitted + 1, fitted + 2))
    np.testing.assert_array_equal(at_best_rate(flat, 2).online, fitted[:, 0] + 1)
