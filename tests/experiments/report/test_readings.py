"""What test examples and evaluations add to the intervals of a study, and where these end."""

import numpy as np
import pytest
from synthetic import study

from experiments.report.findings import findings
from experiments.report.summary import summarize
from experiments.report.tiles import tiles
from experiments.report.write import comparison_rows

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


def test_a_difference_ends_where_both_accuracies_do():
    # 10 and 100 % of one network, 96 to 98 % of the other: t(1) alone would give -675 to +761.
    wide = np.array([[0.1, 1.0], [0.1, 0.1]])
    narrow = np.array([[0.1, 0.96], [0.1, 0.98]])
    summary = summarize(study([[wide], [narrow]], rates=[1.0]))
    accuracy = {n: network["final_accuracy"] for n, network in summary["norms"].items()}
    assert (accuracy["none"]["low"], accuracy["none"]["high"]) == (0, 1)
    least = accuracy["batch norm"]["low"]
    assert 0 < least < 0.96
    (comparison,) = summary["comparisons"]
    difference = comparison["best_rate"]["accuracy_difference"]
    assert difference["mean"] == pytest.approx(0.42)
    assert difference["low"] == pytest.approx(least - 1, abs=1e-6)  # none is at 1 at most
    assert difference["high"] == 1
    assert difference["verdict"] == "undecided"
    (at_rate,) = comparison["by_learning_rate"]
    assert at_rate["accuracy_difference"] == difference
    said = f"({100 * (least - 1):.2f} to +100.00)".replace("-", "−")
    assert said in comparison_rows(comparison, "accuracy")[1][0][1]
    assert said[1:-1] in tiles(summary, comparison)[0].interval
    assert said[1:-1] in findings(summary)["shows"]


def test_scores_without_a_lower_end_are_cut_above_alone():
    wide = np.array([[0.1, 0.9], [0.1, -0.9]])
    dataset = study([[wide], [np.full_like(wide, 0.5)]], rates=[1.0])
    dataset = dataset.rename(test_accuracy="test_r2").assign_attrs(score="test_r2", chance=0)
    difference = summarize(dataset)["comparisons"][0]["best_rate"]["accuracy_difference"]
    assert difference["low"] == pytest.approx(-0.5)  # of 0.5 at 1 at most
    assert difference["high"] > 2


def test_seeds_that_are_read_alike_have_an_interval_of_steps_and_none_begins_below_one():
    alike = np.array([[0.1, 0.5, 0.96], [0.1, 0.5, 0.96]])
    dataset = study([[alike]], norms=["none"], rates=[1.0])
    steps = summarize(dataset)["norms"]["none"]["steps_to"]["0.95"]
    # Both between 10 and 20, so their spread and their error are log(2) / sqrt(12); t(0.975) with 1
    # degree of freedom is 12.706.
    half = np.hypot(12.706 / np.sqrt(2), 1.96) * np.log(2) / np.sqrt(12)
    assert (steps["mean"], steps["low"]) == (20, pytest.approx(np.sqrt(200) / np.exp(half), 1e-3))
    assert steps["high"] == pytest.approx(np.sqrt(200) * np.exp(half), rel=1e-3)
    early = dataset.assign_coords(step=[0, 1, 4])
    steps = summarize(early)["norms"]["none"]["steps_to"]["0.95"]
    assert (steps["mean"], steps["low"]) == (4, 1)
