"""Intervals and verdicts against numbers worked out by hand."""

import numpy as np
import pytest

from experiments.report.inference import (
    arrivals_at,
    geometric_interval,
    mean_interval,
    sampling_error,
    seeds_to_decide,
    shared_error,
    speed_up,
    verdict,
)

# t(0.975) with 2 degrees of freedom, from a printed table.
T2 = 4.303


def test_a_mean_has_the_t_interval_of_its_seeds():
    # mean 2, standard deviation 1, so the half-width is t / sqrt(3).
    interval = mean_interval([1.0, 2.0, 3.0, np.nan])
    assert interval["mean"] == 2
    assert interval["high"] - 2 == pytest.approx(T2 / np.sqrt(3), rel=1e-3)
    assert 2 - interval["low"] == pytest.approx(T2 / np.sqrt(3), rel=1e-3)
    assert mean_interval([2.0]) == {"mean": 2, "low": None, "high": None}
    assert mean_interval([np.nan]) == {"mean": None, "low": None, "high": None}


def test_what_all_seeds_share_widens_an_interval():
    interval = mean_interval([1.0, 2.0, 3.0], sampling=1.0)
    assert interval["high"] - 2 == pytest.approx(np.hypot(T2 / np.sqrt(3), 1.96), rel=1e-3)
    assert mean_interval([1.0, 1.0], sampling=0.5)["low"] == pytest.approx(1 - 0.98, rel=1e-3)


# So fine that an evaluation tells when a run arrives.
DENSE = np.linspace(5, 400, 400_000)


def test_an_interval_of_steps_never_ends_below_zero():
    interval = geometric_interval(arrivals_at([20, 20, 400], DENSE))
    assert interval["mean"] == pytest.approx((20 * 20 * 400) ** (1 / 3))
    assert 0 < interval["low"] < 20


def test_seeds_that_arrive_at_one_evaluation_came_some_time_after_the_one_before():
    interval = geometric_interval(arrivals_at([20, 20, 20], np.array([10, 20, 40])))
    assert interval["mean"] == pytest.approx(20)
    # Between 10 and 20, and so at their geometric mean, give or take log(2) / sqrt(12): once as the
    # seeds' spread, once as an error of all.
    cell = np.log(2) / np.sqrt(12)
    half = np.hypot(T2 / np.sqrt(3) * cell, 1.96 * cell)
    assert interval["low"] == pytest.approx(np.sqrt(200) * np.exp(-half), rel=1e-3)
    assert interval["high"] == pytest.approx(np.sqrt(200) * np.exp(half), rel=1e-3)


def test_a_ratio_of_steps_has_the_reading_error_of_both():
    evaluations = np.array([5, 10, 20, 200, 220, 240])
    ratio = speed_up([240, 240, 240], [20, 20, 20], evaluations)
    assert ratio["mean"] == pytest.approx(12)
    middle = np.sqrt(220 * 240) / np.sqrt(10 * 20)
    cell = np.hypot(np.log(240 / 220), np.log(2)) / np.sqrt(12)
    half = np.hypot(T2 / np.sqrt(3) * cell, 1.96 * cell)
    assert ratio["low"] == pytest.approx(middle * np.exp(-half), rel=1e-3)
    assert ratio["high"] == pytest.approx(middle * np.exp(half), rel=1e-3)


def test_seeds_that_differ_by_more_than_the_grid_show_what_they_differ_by():
    seen, before = np.array([20, 40, 80]), np.array([10, 20, 40])
    interval = geometric_interval(arrivals_at(seen, np.array([10, 20, 40, 80])))
    half = np.hypot(T2 / np.sqrt(3) * np.log(2), 1.96 * np.log(2) / np.sqrt(12))
    middle = np.sqrt(seen * before).prod() ** (1 / 3)
    assert interval["high"] == pytest.approx(middle * np.exp(half), rel=1e-3)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.001, 0.02, "better"),
        (-0.02, -0.001, "worse"),
        (-0.004, 0.003, "equal"),
        (0.001, 0.004, "equal"),
        (-0.004, 0.006, "undecided"),
        (-0.07, 0.07, "undecided"),
        (0.0, 0.006, "undecided"),
    ],
)
def test_four_answers(low, high, expected):
    assert verdict({"mean": (low + high) / 2, "low": low, "high": high}, 0.005) == expected


def test_no_interval_is_no_verdict():
    assert verdict({"mean": 0.1, "low": None, "high": None}) == "one seed"
    assert verdict({"mean": None, "low": None, "high": None}) == "unknown"
    assert verdict({"mean": 2.0, "low": 1.5, "high": 2.5}, neutral=1.0) == "better"


def test_the_seeds_that_would_decide():
    # Mean 0.01, deviation 0.01: half the interval of 7 seeds is 2.447 / sqrt(7) = 0.925 of it,
    # that of 6 is 2.571 / sqrt(6) = 1.05.
    assert seeds_to_decide([0.0, 0.01, 0.02], 0.005) == 7
    # Mean 0: equal within 0.005 once t / sqrt(n) is half a deviation, 2.110 / sqrt(18) = 0.497.
    assert seeds_to_decide([-0.01, 0.0, 0.01], 0.005) == 18
    assert seeds_to_decide([0.0, 0.01, 0.02], 0.005, sampling=0.01) is None
    assert seeds_to_decide([0.01], 0.005) is None


def test_the_error_of_a_test_set_is_bounded_by_both_error_rates():
    # 4 of 100 and 5 of 100 wrong: at most 9 images differ.
    assert sampling_error(0.96, 0.95, 100) == pytest.approx(0.03)
    assert sampling_error(0.96, 0.95, None) == 0
    assert sampling_error(1.0, 1.0, 100) == 0


def test_speed_up_is_the_geometric_mean_of_the_seeds_ratios():
    ratio = speed_up([40, 90], [10, 10], DENSE)
    assert ratio["mean"] == pytest.approx(6)  # sqrt(4 * 9)
    assert ratio["kind"] == "measured"
    # In logarithms the half-width is t(1) * std / sqrt(2) = 12.706 * log(9 / 4) / 2.
    assert ratio["high"] == pytest.approx(6 * np.exp(12.706 * np.log(9 / 4) / 2), rel=1e-3)
    assert ratio["low"] * ratio["high"] == pytest.approx(36, rel=1e-3)


@pytest.mark.parametrize(
    ("baseline", "other", "mean", "kind"),
    [
        ([40, np.nan], [10, 10], np.sqrt(40), "at least"),
        ([10, 10], [np.nan, 40], 1 / np.sqrt(40), "at most"),
        ([10, np.nan], [np.nan, 10], None, "unknown"),
        ([40, 90], [5, 10], np.sqrt(72), "at least"),
        ([5, 10], [40, 90], 1 / np.sqrt(72), "at most"),
        ([5, 90], [5, 10], None, "unknown"),
    ],
)
def test_who_never_arrives_or_had_arrived_at_the_first_look_gives_a_bound(
    baseline, other, mean, kind
):
    ratio = speed_up(baseline, other, np.array([5, 10, 40, 90, 100]))
    assert ratio == {
        "mean": pytest.approx(mean) if mean else None, "low": None, "high": None, "kind": kind,
    }  # fmt: skip


def test_the_error_of_shared_examples_is_what_other_examples_would_change():
    """Analysis of variance against many test sets: of examples alone, and of seeds alone."""
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0.0, 0.3, 400)
    assert shared_error(np.tile(difficulty, (5, 1))) == pytest.approx(difficulty.std(ddof=1) / 20)
    # Where each seed draws anew what it gets wrong, examples add nothing to what seeds show.
    drawn = [shared_error(rng.normal(size=(5, 400))) ** 2 for _ in range(200)]
    assert np.mean(drawn) < 0.2 * 1 / (5 * 400)
    assert shared_error(np.ones((3, 1))) == 0


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_over_seeds_and_shared_examples_cover(seeds):
    """Differences of seed, of example and of both, drawn anew 2000 times."""
    rng, examples, covered = np.random.default_rng(seeds), 100, []
    for _ in range(2000):
        scores = rng.normal(0, 0.05, (seeds, 1)) + rng.normal(0, 0.4, examples)
        scores = scores + rng.normal(0, 0.3, (seeds, examples))
        found = mean_interval(scores.mean(axis=1), shared_error(scores))
        covered.append(found["low"] <= 0 <= found["high"])
    assert 0.93 <= np.mean(covered) <= 0.985
