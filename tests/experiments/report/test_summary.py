"""Every number of the summary against one worked out by hand, every sentence against its sign."""

import json

import numpy as np
import pytest
from synthetic import study

from experiments.report.findings import findings
from experiments.report.summary import mean_interval, speed_up, summarize

# t(0.975) with 2 degrees of freedom, from a printed table.
T2 = 4.303


def runs(*seeds):
    """Accuracies `(seed, step)`."""
    return np.array(seeds)


FLAT = runs([0.1, 0.5, 0.5], [0.1, 0.5, 0.5], [0.1, 0.5, 0.5])
GOOD = runs([0.1, 0.81, 0.94], [0.1, 0.82, 0.96], [0.1, 0.70, 0.95])
BETTER = runs([0.1, 0.96, 0.97], [0.1, 0.97, 0.98], [0.1, 0.95, 0.99])


def two_networks(baseline, other, **kwargs):
    return study(np.array([baseline, other]), **kwargs)


def test_a_mean_has_the_t_interval_of_its_seeds():
    # mean 2, standard deviation 1, so the half-width is t / sqrt(3).
    interval = mean_interval([1.0, 2.0, 3.0, np.nan])
    assert interval["mean"] == 2
    assert interval["high"] - 2 == pytest.approx(T2 / np.sqrt(3), rel=1e-3)
    assert 2 - interval["low"] == pytest.approx(T2 / np.sqrt(3), rel=1e-3)
    assert mean_interval([2.0]) == {"mean": 2, "low": None, "high": None}
    assert mean_interval([np.nan]) == {"mean": None, "low": None, "high": None}


def test_final_accuracy_is_of_the_last_step_at_the_best_rate():
    network = summarize(two_networks([FLAT, GOOD], [GOOD, BETTER]))["norms"]["none"]
    assert network["best_learning_rate"] == 1
    accuracy = network["final_accuracy"]
    assert accuracy["mean"] == pytest.approx(0.95)
    assert accuracy["high"] == pytest.approx(0.95 + T2 * 0.01 / np.sqrt(3), rel=1e-3)


def test_an_accuracy_interval_ends_at_one():
    nearly = runs([0.1, 1.0], [0.1, 1.0], [0.1, 0.97])
    accuracy = summarize(study([[nearly]], norms=["none"], rates=[1.0]))
    assert accuracy["norms"]["none"]["final_accuracy"]["high"] == 1


def test_the_best_rate_is_not_one_at_which_a_seed_diverged():
    lucky = BETTER.copy()
    lucky[0, 2] = np.nan
    summary = summarize(two_networks([GOOD, lucky], [lucky, lucky]))
    assert summary["norms"]["none"]["best_learning_rate"] == 0.1
    # Where every rate loses a seed, the survivors are all there is; a tie goes to the smaller.
    network = summary["norms"]["batch norm"]
    assert network["best_learning_rate"] == 0.1
    assert network["final_accuracy"]["mean"] == pytest.approx(0.985)


def test_of_rates_that_end_level_the_fastest_is_the_best():
    slow = runs([0.1, 0.5, 0.97], [0.1, 0.5, 0.98], [0.1, 0.5, 0.99])
    fast = runs([0.1, 0.9, 0.966], [0.1, 0.9, 0.976], [0.1, 0.9, 0.986])
    worse = runs([0.1, 0.95, 0.95], [0.1, 0.95, 0.96], [0.1, 0.95, 0.97])
    # The standard error is 0.01 / sqrt(3) = 0.0058: 0.976 is level with 0.98, and 0.96 is not.
    level = summarize(study([[slow, fast, worse]], norms=["none"], rates=[0.1, 1.0, 10.0]))
    assert level["norms"]["none"]["best_learning_rate"] == 1


def test_steps_to_a_target_is_the_first_evaluation_there():
    steps = summarize(two_networks([GOOD, FLAT], [BETTER, FLAT]))["norms"]["none"]["steps_to"]
    assert steps["0.80"]["by_seed"] == [10, 10, 20]
    assert steps["0.80"]["mean"] == pytest.approx(40 / 3, rel=1e-5)
    assert (steps["0.80"]["reached"], steps["0.80"]["of"]) == (3, 3)


def test_never_is_an_answer_and_is_not_averaged_away():
    steps = summarize(two_networks([GOOD, FLAT], [BETTER, FLAT]))["norms"]["none"]["steps_to"]
    assert steps["0.95"] == {
        "mean": None, "low": None, "high": None, "reached": 2, "of": 3, "by_seed": [None, 20, 20],
    }  # fmt: skip


def test_a_run_that_diverges_later_reached_nothing():
    lost = np.insert(BETTER, 3, 0.97, axis=1)
    lost[1, 3] = np.nan
    steps = summarize(study([[lost]], norms=["none"], rates=[1.0]))["norms"]["none"]["steps_to"]
    assert steps["0.80"]["by_seed"] == [10, None, 10]


def test_speed_up_is_the_geometric_mean_of_the_seeds_ratios():
    ratio = speed_up([40, 90], [10, 10], last_step=100)
    assert ratio["mean"] == pytest.approx(6)  # sqrt(4 * 9)
    assert ratio["kind"] == "measured"
    # In logarithms the half-width is t(1) * std / sqrt(2) = 12.706 * log(9 / 4) / 2.
    assert ratio["high"] == pytest.approx(6 * np.exp(12.706 * np.log(9 / 4) / 2), rel=1e-3)
    assert ratio["low"] * ratio["high"] == pytest.approx(36)


@pytest.mark.parametrize(
    ("baseline", "other", "mean", "kind"),
    [
        ([40, np.nan], [10, 10], np.sqrt(40), "at least"),
        ([10, 10], [np.nan, 40], 1 / np.sqrt(40), "at most"),
        ([10, np.nan], [np.nan, 10], None, "unknown"),
    ],
)
def test_a_run_that_never_arrives_makes_the_speed_up_a_bound(baseline, other, mean, kind):
    ratio = speed_up(baseline, other, last_step=100)
    assert ratio == {
        "mean": pytest.approx(mean) if mean else None, "low": None, "high": None, "kind": kind,
    }  # fmt: skip


def test_a_comparison_is_made_at_the_same_rate_and_at_each_best():
    (comparison,) = summarize(two_networks([GOOD, FLAT], [FLAT, BETTER]))["comparisons"]
    assert (comparison["norm"], comparison["baseline"]) == ("batch norm", "none")
    best, same = comparison["best_rate"], comparison["same_rate"]
    assert best["learning_rate"] == {"none": 0.1, "batch norm": 1}
    assert same["learning_rate"] == {"none": 0.1, "batch norm": 0.1}
    assert best["accuracy_difference"]["mean"] == pytest.approx(0.03)
    assert same["accuracy_difference"]["mean"] == pytest.approx(-0.45)
    assert best["speed_up"]["0.80"]["mean"] == pytest.approx(2 ** (1 / 3), rel=1e-5)
    assert same["speed_up"]["0.80"]["kind"] == "at most"
    gains = [c["accuracy_difference"]["mean"] for c in comparison["by_learning_rate"]]
    assert gains == pytest.approx([-0.45, 0.48])


def test_a_difference_is_paired_by_seed():
    # Seeds differ by far more than the networks, yet each seed gains exactly 0.02.
    spread = runs([0.1, 0.5], [0.1, 0.7], [0.1, 0.9])
    summary = summarize(two_networks([spread], [spread + np.array([0, 0.02])], rates=[1.0]))
    difference = summary["comparisons"][0]["best_rate"]["accuracy_difference"]
    assert difference["low"] == pytest.approx(0.02, abs=1e-5)
    assert difference["pairs"] == 3


def test_the_largest_stable_rate_comes_before_the_first_lost_run():
    lost, weak = GOOD.copy(), GOOD.copy()
    lost[1, 1:] = np.nan
    weak[2, 2] = 0.75  # below 0.8 of the best mean, 0.98
    rates = (0.01, 0.1, 1.0, 10.0)
    baseline = [FLAT, BETTER, lost, GOOD]  # holding again at 10 does not make 10 stable
    summary = summarize(two_networks(baseline, [FLAT, BETTER, GOOD, weak], rates=rates))
    none, batch_norm = summary["norms"]["none"], summary["norms"]["batch norm"]
    assert none["largest_stable_learning_rate"] == 0.1
    assert none["diverged"] == {
        "count": 1, "of": 12, "runs": [{"learning_rate": 1, "seed": 1, "step": 10, "by": "loss"}],
    }  # fmt: skip
    # Too slow at 0.01 is not unstable; finite at 10 is not stable.
    assert batch_norm["largest_stable_learning_rate"] == 1
    assert batch_norm["diverged"]["runs"] == [
        {"learning_rate": 10, "seed": 2, "step": None, "by": "accuracy"}
    ]


def test_the_end_of_the_sweep_is_no_limit_of_stability():
    network = summarize(two_networks([GOOD, FLAT], [GOOD, BETTER]))["norms"]["batch norm"]
    assert network["largest_stable_learning_rate"] == 1
    assert network["largest_stable_is_largest_tried"]


def test_gradient_figures_are_means_over_training_at_the_best_rate():
    dataset = two_networks([GOOD, FLAT], [FLAT, BETTER])
    # Other values at the other rate, and a step at which nothing was measured.
    dataset["gradient_norm"].loc[{"learning_rate": 1.0}] *= 10
    dataset["gradient_norm"].loc[{"norm": "batch norm", "step": 0}] = np.nan
    dataset["gradient_norm"].loc[{"norm": "batch norm", "step": 20}] *= 2
    networks = summarize(dataset)["norms"]
    assert networks["none"]["gradients"]["gradient_norm"]["output"]["mean"] == 2
    # 2 * 10 for the first layer, doubled at one of the two steps.
    assert networks["batch norm"]["gradients"]["gradient_norm"]["hidden_1"]["mean"] == 30
    assert networks["batch norm"]["gradients"]["gradient_cosine"]["mean"] == pytest.approx(0.2)


def test_everything_is_json_and_diverging_everywhere_is_no_crash():
    dead = np.full_like(GOOD, np.nan)
    summary = summarize(two_networks([dead, dead], [GOOD, BETTER]))
    json.dumps(summary, allow_nan=False)
    none = summary["norms"]["none"]
    assert none["best_learning_rate"] is None
    assert none["largest_stable_learning_rate"] is None
    assert none["final_accuracy"]["mean"] is None
    assert none["diverged"]["count"] == 6
    assert "Every run of “none” diverged" in findings(summary)["shows"]


def test_rates_may_come_in_any_order():
    ordered = summarize(two_networks([GOOD, BETTER], [FLAT, GOOD], rates=(0.1, 1.0)))
    assert summarize(two_networks([BETTER, GOOD], [GOOD, FLAT], rates=(1.0, 0.1))) == ordered


# What is said follows the sign and the interval.


def test_better_is_said_to_be_better():
    shows = findings(summarize(two_networks([FLAT, GOOD], [GOOD, BETTER])))["shows"]
    assert "At the learning rate 1, the best of both networks" in shows
    assert "“batch norm” ends higher than “none”: +3.00 points" in shows
    assert "“batch norm” alone reaches 95\N{NO-BREAK SPACE}% with every seed" in shows
    assert "Rate for rate it ends higher at all 2" in shows


def test_worse_is_said_to_be_worse():
    slow = np.repeat(BETTER, [1, 2, 1], axis=1)  # arrives at 10, as BETTER does
    slower = np.repeat(BETTER, [2, 1, 1], axis=1)  # arrives at 20
    dataset = two_networks([slow, FLAT.repeat([1, 2, 1], 1)], [slower, FLAT.repeat([1, 2, 1], 1)])
    dataset.test_accuracy.loc[{"norm": "batch norm", "step": 30}] -= 0.02
    shows = findings(summarize(dataset))["shows"]
    assert "“batch norm” ends lower than “none”: −2.00 points" in shows
    assert "reaches 95\N{NO-BREAK SPACE}% 2.00 times later (2.00 to 2.00)" in shows
    assert "Rate for rate it ends lower at all 2" in shows
    assert "sooner" not in shows


def test_a_tie_is_said_to_be_a_tie_whichever_way_its_mean_points():
    shuffled = BETTER[[1, 2, 0]]
    shuffled[0, 2] += 0.001
    shows = findings(summarize(two_networks([FLAT, BETTER], [FLAT, shuffled])))["shows"]
    assert "“batch norm” ends level with “none”: +0.03 points" in shows
    assert "neither clearly sooner nor later" in shows
    assert "higher" not in shows


def test_both_comparisons_are_made_and_named_where_the_best_rates_differ():
    shows = findings(summarize(two_networks([GOOD, FLAT], [FLAT, BETTER])))["shows"]
    assert "Each at its best of the 2 learning rates tried" in shows
    assert "(“batch norm” at 1, “none” at 0.1), “batch norm” ends higher" in shows
    assert "At the same rate, 0.1 (the best one of “none”), “batch norm” ends lower" in shows
    assert "Rate for rate, of 2, it ends higher at 1 and lower at 1" in shows


def test_one_seed_proves_nothing():
    words = findings(summarize(two_networks([GOOD[:1]], [BETTER[:1]], rates=[1.0])))
    assert (
        "cannot be told from “none”: +3.00 points of test accuracy, from one seed" in words["shows"]
    )
    assert "With one seed nothing here can be told from chance" in words["does_not_show"]


def test_the_limits_are_said():
    limits = findings(summarize(two_networks([GOOD, FLAT], [FLAT, BETTER])))["does_not_show"]
    for said in (
        "population statistics",
        "3 seeds",
        "chosen on the same test accuracy",
        "not in seconds",
        "MLP((100,), 'sigmoid') on Digits() says nothing of other networks",
        "that of “batch norm” is the largest tried",
    ):
        assert said in limits


def test_one_network_is_not_compared():
    shows = findings(summarize(study([[GOOD]], norms=["none"], rates=[1.0])))["shows"]
    assert "nothing is compared" in shows
