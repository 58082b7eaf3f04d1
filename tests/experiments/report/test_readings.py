"""What each test example's score adds to the intervals of a study."""

import numpy as np
import pytest
from synthetic import study

from experiments.report.summary import summarize

T2 = 4.303  # Student's t for 95 % and three seeds


def test_each_example_tells_what_a_shared_test_set_adds():
    """Two seeds, 16 examples: where both networks err alike, the test set says little."""
    right = {"none": [4 * [1, 1, 0, 0]] * 2, "batch norm": [4 * [1, 1, 1, 0]] * 2}
    accuracy = np.array([np.mean(right[n], axis=1) for n in right])[:, None, :, None]
    dataset = study(np.concatenate([0 * accuracy + 0.1, accuracy], axis=-1), rates=(0.1,))
    dataset.attrs["test_examples"] = 16
    each = np.array([*right.values()], np.int8)[:, None]
    dims = ("norm", "learning_rate", "seed", "test_example")

    def half_width(each):
        known = dataset.assign(test_example_score=(dims, each))
        found = summarize(known)["comparisons"][0]["best_rate"]["accuracy_difference"]
        return (found["high"] - found["low"]) / 2

    # The difference is 0, 0, 1, 0, and so on, in both seeds.
    assert half_width(each) == pytest.approx(1.96 * np.std(4 * [0, 0, 1, 0], ddof=1) / 4, rel=1e-3)
    # A run that was lost counts as guessing, at every example.
    lost = dataset.diverged_at.copy()
    lost[1, 0, :] = 5
    dataset = dataset.assign(diverged_at=lost)
    assert half_width(each) == pytest.approx(
        1.96 * np.std(4 * [0.9, 0.9, -0.1, -0.1], ddof=1) / 4, rel=1e-3
    )


def test_squared_errors_of_examples_are_no_scores():
    """Two seeds of a regression that agree: what an example adds is in another unit."""
    r2 = np.array([[[0.6, 0.6]], [[0.7, 0.7]]])[..., None]
    dataset = study(np.concatenate([0 * r2, r2], axis=-1), rates=(0.1,))
    dataset = dataset.rename(test_accuracy="test_r2").assign_attrs(score="test_r2")
    each = 3000 * np.random.default_rng(0).random((2, 1, 2, 8))
    dims = ("norm", "learning_rate", "seed", "test_example")
    found = summarize(dataset.assign(test_example_score=(dims, each)))
    difference = found["comparisons"][0]["best_rate"]["accuracy_difference"]
    assert difference["high"] - difference["low"] == pytest.approx(0, abs=1e-6)


def test_seeds_that_agree_to_an_example_leave_an_interval():
    """Three seeds with 20 examples of their own, of which the second network has two more right."""
    each = np.zeros((2, 1, 3, 20), np.int8)
    each[0, ..., :16], each[1, ..., :18] = 1, 1
    accuracy = each.mean(axis=-1)[..., None]
    dataset = study(np.concatenate([0 * accuracy + 0.1, accuracy], axis=-1), rates=(0.1,))
    dims = ("norm", "learning_rate", "seed", "test_example")
    found = summarize(dataset.assign(test_example_score=(dims, each)))
    difference = found["comparisons"][0]["best_rate"]["accuracy_difference"]
    assert difference["mean"] == pytest.approx(0.1)
    half = 1.96 * np.sqrt(0.1 * 0.9 / 60)
    assert difference["high"] - difference["mean"] == pytest.approx(half, rel=1e-3)
    # Where they differ the spread over seeds says it all.
    each[1, 0, 0] = 1
    accuracy = each.mean(axis=-1)[..., None]
    dataset = study(np.concatenate([0 * accuracy + 0.1, accuracy], axis=-1), rates=(0.1,))
    found = summarize(dataset.assign(test_example_score=(dims, each)))
    difference = found["comparisons"][0]["best_rate"]["accuracy_difference"]
    spread = np.std([0.2, 0.1, 0.1], ddof=1) / np.sqrt(3)
    assert difference["high"] - difference["mean"] == pytest.approx(T2 * spread, rel=1e-3)
