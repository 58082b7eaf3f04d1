"""Every number of the summary against one worked out by hand, every sentence against its sign."""

import json

import numpy as np
import pytest
from synthetic import of_several_values, study

from experiments.report.budget import expected_best
from experiments.report.findings import findings
from experiments.report.summary import summarize
from experiments.report.write import budget_rows, comparison_rows

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


def test_a_run_whose_loss_was_not_finite_counts_as_chance():
    lucky = BETTER.copy()
    lucky[0, 2] = np.nan
    summary = summarize(two_networks([GOOD, lucky], [lucky, lucky]))
    assert summary["norms"]["none"]["best_learning_rate"] == 0.1
    # 0.1, 0.98, 0.99; of rates that end equal the smaller is taken.
    network = summary["norms"]["batch norm"]
    assert network["best_learning_rate"] == 0.1
    assert network["final_accuracy"]["mean"] == pytest.approx(0.69)
    gains = [
        c["accuracy_difference"]["mean"] for c in summary["comparisons"][0]["by_learning_rate"]
    ]
    assert gains == pytest.approx([0.69 - 0.95, 0])


def test_each_seed_is_read_at_the_rate_that_the_others_choose():
    # At rate 1 seed 0 alone is lucky: chosen by all seeds, and not by the other two.
    lucky = runs([0.1, 1.0], [0.1, 0.9], [0.1, 0.9])
    steady = runs([0.1, 0.92], [0.1, 0.92], [0.1, 0.92])
    network = summarize(study([[steady, lucky]], norms=["none"]))["norms"]["none"]
    assert network["best_learning_rate"] == 1
    assert network["rates_chosen_by_others"] == [0.1, 1, 1]
    assert network["final_accuracy"]["mean"] == pytest.approx((0.92 + 0.9 + 0.9) / 3)


def test_validation_data_choose_where_there_are_some():
    dataset = two_networks([GOOD, BETTER], [GOOD, BETTER])
    dataset["validation_accuracy"] = 1 - dataset.test_accuracy
    summary = summarize(dataset)
    assert summary["norms"]["none"]["best_learning_rate"] == 0.1
    assert "by validation accuracy; what is reported is test" in findings(summary)["does_not_show"]


def test_steps_to_a_target_is_the_first_evaluation_there():
    steps = summarize(two_networks([GOOD, FLAT], [BETTER, FLAT]))["norms"]["none"]["steps_to"]
    assert steps["0.80"]["by_seed"] == [10, 10, 20]
    assert steps["0.80"]["mean"] == pytest.approx(10 * 2 ** (1 / 3), rel=1e-5)
    assert steps["0.80"]["at_most"]
    assert steps["0.80"]["low"] is None
    assert (steps["0.80"]["reached"], steps["0.80"]["of"]) == (3, 3)


def test_never_is_an_answer_and_is_not_averaged_away():
    steps = summarize(two_networks([GOOD, FLAT], [BETTER, FLAT]))["norms"]["none"]["steps_to"]
    assert steps["0.95"] == {
        "mean": None, "low": None, "high": None, "reached": 2, "of": 3, "at_most": False,
        "by_seed": [None, 20, 20],
    }  # fmt: skip


def test_steps_are_known_for_every_target_that_is_reached():
    summary = summarize(two_networks([GOOD, FLAT], [BETTER, FLAT]))
    curve = summary["norms"]["none"]["steps_curve"]
    assert curve["target"] == [percent / 100 for percent in range(11, 97)]  # the best ends at 0.96
    for target, steps in summary["norms"]["none"]["steps_to"].items():
        at = curve["target"].index(float(target))
        assert (curve["mean"][at], curve["reached"][at]) == (steps["mean"], steps["reached"])
    pair = summary["comparisons"][0]["best_rate"]
    curve = pair["speed_up_curve"]
    assert curve["target"][-1] == 0.99
    at = curve["target"].index(0.95)
    assert (curve["mean"][at], curve["kind"][at]) == (pair["speed_up"]["0.95"]["mean"], "at least")


def test_what_to_expect_of_a_budget_is_the_mean_over_all_subsets():
    scores = np.array([0.3, 0.1, 0.2])
    # Of two: 0.3, 0.3, 0.2.
    assert expected_best(scores, scores) == pytest.approx([0.2, 0.8 / 3, 0.3])
    # Chosen by something else, which likes 0.1 best and 0.3 least.
    assert expected_best(scores, -scores) == pytest.approx([0.2, 0.4 / 3, 0.1])


def test_each_arm_has_the_budget_curve_of_its_own_settings():
    summary = summarize(of_several_values())
    assert summary["budget"]["none"]["tried"] == [1, 2]
    arm = summary["budget"]["bn"]
    assert arm["tried"] == [*range(1, 9)]
    assert arm["mean"] == sorted(arm["mean"])
    # With all tried the best is had, of each seed.
    final = of_several_values().test_accuracy.isel(norm=slice(1, None), step=-1)
    best = float(final.max(("norm", "learning_rate")).mean("seed"))
    assert arm["mean"][-1] == pytest.approx(best, rel=1e-4)
    header, rows = budget_rows({**summary, "confirmation": None})
    assert header[1:] == ["none", "bn"]
    assert [row[0] for row in rows] == ["1", "2", "3", "5", "8"]
    assert rows[2][1] == ""


def test_a_run_that_diverges_later_reached_nothing():
    lost = np.insert(BETTER, 3, 0.97, axis=1)
    lost[1, 3] = np.nan
    steps = summarize(study([[lost]], norms=["none"], rates=[1.0]))["norms"]["none"]["steps_to"]
    assert steps["0.80"]["by_seed"] == [10, None, 10]


def test_a_comparison_is_made_at_the_same_rate_and_at_each_best():
    (comparison,) = summarize(two_networks([GOOD, FLAT], [FLAT, BETTER]))["comparisons"]
    assert (comparison["norm"], comparison["baseline"]) == ("batch norm", "none")
    best, same = comparison["best_rate"], comparison["same_rate"]
    assert best["learning_rate"] == {"none": 0.1, "batch norm": 1}
    assert same["learning_rate"] == {"none": 0.1, "batch norm": 0.1}
    assert best["accuracy_difference"]["mean"] == pytest.approx(0.03)
    assert same["accuracy_difference"]["mean"] == pytest.approx(-0.45)
    assert best["speed_up"]["0.95"]["kind"] == "at least"
    assert same["speed_up"]["0.80"]["kind"] == "at most"
    gains = [c["accuracy_difference"]["mean"] for c in comparison["by_learning_rate"]]
    assert gains == pytest.approx([-0.45, 0.48])


def test_a_difference_is_paired_by_seed():
    # Seeds differ by far more than the networks, yet each seed gains exactly 0.02.
    spread = runs([0.1, 0.5], [0.1, 0.7], [0.1, 0.9])
    summary = summarize(two_networks([spread], [spread + np.array([0, 0.02])], rates=[1.0]))
    difference = summary["comparisons"][0]["best_rate"]["accuracy_difference"]
    assert difference["low"] == pytest.approx(0.02, abs=1e-5)
    assert difference["verdict"] == "better"


def test_one_rule_says_at_every_rate_what_did_not_learn():
    lost, fell, stuck = GOOD.copy(), GOOD.copy(), FLAT.copy()
    lost[1, 1:] = np.nan
    fell[2] = [0.1, 0.95, 0.75]  # below 0.8 of the highest it had
    stuck[0] = [0.1, 0.19, 0.1]
    rates = (0.01, 0.1, 1.0, 10.0)
    baseline = [FLAT, BETTER, lost, GOOD]  # holding again at 10 does not make 10 stable
    summary = summarize(two_networks(baseline, [stuck, BETTER, GOOD, fell], rates=rates))
    none, batch_norm = summary["norms"]["none"], summary["norms"]["batch norm"]
    assert none["largest_stable_learning_rate"] == 0.1
    assert none["did_not_learn"] == {
        "count": 1, "of": 12, "runs": [{"learning_rate": 1, "seed": 1, "step": 10, "by": "loss"}],
    }  # fmt: skip
    # Stuck at 0.01 is said, and is no limit from above; finite at 10 is not stable.
    assert batch_norm["largest_stable_learning_rate"] == 1
    assert batch_norm["did_not_learn"]["runs"] == [
        {"learning_rate": 0.01, "seed": 0, "step": None, "by": "stuck"},
        {"learning_rate": 10, "seed": 2, "step": None, "by": "fell"},
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
    assert none["largest_stable_learning_rate"] is None
    assert none["final_accuracy"]["mean"] == pytest.approx(0.1)
    assert none["did_not_learn"]["count"] == 6
    assert "6 of the 6 runs (6 loss not finite) of “none”" in findings(summary)["shows"]


def test_a_test_set_that_all_seeds_share_widens_the_interval():
    dataset = two_networks([GOOD], [BETTER], rates=[1.0])
    dataset.attrs["test_examples"] = 100
    difference = summarize(dataset)["comparisons"][0]["best_rate"]["accuracy_difference"]
    # Differences 0.03, 0.02, 0.04; wrong are 5 % and 2 %: at most 7 of 100 images differ.
    over_seeds, over_images = T2 * 0.01 / np.sqrt(3), 1.96 * np.sqrt(0.07 / 100)
    half = np.sqrt(over_seeds**2 + over_images**2)
    assert difference["low"] == pytest.approx(0.03 - half, rel=1e-3)
    assert difference["verdict"] == "undecided"
    assert difference["seeds_to_decide"] is None
    assert "no number of seeds would decide, with 100" in findings(summarize(dataset))["shows"]


def test_rates_may_come_in_any_order():
    ordered = summarize(two_networks([GOOD, BETTER], [FLAT, GOOD], rates=(0.1, 1.0)))
    assert summarize(two_networks([BETTER, GOOD], [GOOD, FLAT], rates=(1.0, 0.1))) == ordered


# What is said follows the sign and the interval.


def test_better_is_said_to_be_better():
    shows = findings(summarize(two_networks([FLAT, GOOD], [GOOD, BETTER])))["shows"]
    assert "At the learning rate 1, the best of both networks" in shows
    assert "“batch norm” ends higher than “none”: +3.00 points" in shows
    assert "“batch norm” reaches 95\N{NO-BREAK SPACE}% at least" in shows
    assert "Rate for rate it ends higher at all 2" in shows


def test_worse_is_said_to_be_worse():
    ends = np.array([[0.97], [0.98], [0.99]])
    slow = np.where(np.arange(13) >= 4, ends, 0.5)
    slower = np.where(np.arange(13) >= 10, ends - 0.02, 0.5)
    shows = findings(summarize(two_networks([slow], [slower], rates=[1.0])))["shows"]
    assert "“batch norm” ends lower than “none”: −2.00 points" in shows
    assert "reaches 95\N{NO-BREAK SPACE}% 2.50 times later" in shows
    assert "sooner" not in shows


def test_a_difference_within_the_margin_is_equal_whichever_way_it_points():
    nearly = BETTER + np.array([0, 0, 0.001])
    shows = findings(summarize(two_networks([FLAT, BETTER], [FLAT, nearly])))["shows"]
    assert "“batch norm” and “none” end equal within 0.5 points: +0.10 points" in shows
    assert "higher" not in shows


def test_the_study_names_the_margin():
    dataset = two_networks([BETTER], [BETTER + np.array([0, 0, 0.001])], rates=[1.0])
    dataset.attrs["config"] = json.dumps({"margin": 0.0005})
    summary = summarize(dataset)
    (comparison,) = summary["comparisons"]
    outcomes = [comparison["best_rate"], *comparison["by_learning_rate"]]
    assert [o["accuracy_difference"]["verdict"] for o in outcomes] == ["better", "better"]
    assert summary["margin"] == 0.0005
    _, rows = comparison_rows(comparison, "accuracy")
    assert rows[1][0] == "verdict, equal within 0.05 points"


def test_what_the_seeds_do_not_decide_is_undecided():
    shuffled = BETTER[[1, 2, 0]]
    shuffled[0, 2] += 0.01
    shows = findings(summarize(two_networks([FLAT, BETTER], [FLAT, shuffled])))["shows"]
    assert "it is undecided which of “batch norm” and “none” ends higher: +0.33 points" in shows
    assert "seeds would decide" in shows


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
        "at the rate that the others chose by test accuracy, for want of validation data",
        "not in seconds",
        "MLP((100,), 'sigmoid') on Digits() says nothing of other networks",
        "of other ways to train than SGD(), schedule constant, for 20 steps",
        "that of “batch norm” is the largest tried",
    ):
        assert said in limits


def test_one_network_is_not_compared():
    shows = findings(summarize(study([[GOOD]], norms=["none"], rates=[1.0])))["shows"]
    assert "nothing is compared" in shows


def test_arms_are_compared_at_their_best_settings():
    summary = summarize(of_several_values())
    (arm,) = summary["arms"]
    assert (arm["baseline"], arm["norm"]) == ("none", "bn")
    assert arm["settings"] == {"none": "rate 0.1", "bn": "momentum 0.5, epsilon 0.1, rate 0.1"}
    assert arm["accuracy_difference"]["mean"] == pytest.approx(0.44, abs=0.005)
    assert arm["did_not_learn"] == {
        "none": {"count": 0, "of": 10},
        "bn": {"count": 0, "of": 40},
    }
    # The network without norm has neither field: every other is beside it.
    assert [c["baseline"] for c in summary["comparisons"]] == ["none"] * 4


def test_a_network_is_beside_the_baseline_of_the_same_values():
    accuracy = np.array([[GOOD, GOOD], [BETTER, BETTER], [BETTER, GOOD], [GOOD, BETTER]])
    names = ["none, a", "none, b", "bn, a", "bn, b"]
    dataset = study(accuracy, norms=names).assign_coords(
        label=("norm", ["none", "none", "bn", "bn"]), init_std=("norm", [0.1, 0.4, 0.1, 0.4])
    )
    summary = summarize(dataset)
    pairs = [(c["baseline"], c["norm"]) for c in summary["comparisons"]]
    assert pairs == [("none, a", "bn, a"), ("none, b", "bn, b")]
    assert summary["arms"][0]["settings"]["none"] == "init_std 0.4, rate 0.1"
    assert summary["arms"][0]["accuracy_difference"]["verdict"] == "equal"
    assert "Each at the best of its settings, 4 at most" in findings(summary)["shows"]


def test_seconds_are_those_of_the_longest_windows():
    dataset = study(np.full((2, 2, 1, 41), 0.5))
    assert summarize(dataset)["norms"]["none"]["seconds_per_step"] is None
    dataset = dataset.assign_coords(step=[0, 2, 5, 10, *range(20, 390, 10)])
    seconds = np.full((2, 41), np.nan, np.float32)
    seconds[0, 2:] = np.arange(2, 41)  # the first compiles; those up to 10 are short
    dataset["seconds_per_step"] = ("norm", "step"), seconds
    norms = summarize(dataset)["norms"]
    expected = {"median": 22, "q25": 13, "q75": 31, "windows": 37}
    assert norms["none"]["seconds_per_step"] == expected
    assert norms["batch norm"]["seconds_per_step"] is None


def test_a_mean_over_training_weighs_evaluations_by_their_steps():
    dataset = study(np.full((2, 2, 1, 3), 0.5)).assign_coords(step=[0, 2, 10])
    dataset["gradient_cosine"].values[..., :] = [np.nan, 1.0, 0.5]
    gradients = summarize(dataset)["norms"]["none"]["gradients"]
    assert gradients["gradient_cosine"]["mean"] == pytest.approx((2 * 1.0 + 8 * 0.5) / 10)
