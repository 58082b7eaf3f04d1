"""Verdicts on simulated studies, whose effects are known."""

import numpy as np
import pytest

from experiments.bench import arrivals
from experiments.bench.arrivals import GRIDS
from experiments.bench.looks import DEVIATION, LOOKS, RULES, follow, pocock
from experiments.bench.verdicts import Case, count
from experiments.report.inference import mean_interval, verdict

UNTIL_DECIDED = RULES["two looks, 97.5 % each (`--until-decided`)"]


@pytest.mark.parametrize("examples", [None, 300])
def test_false_verdicts_are_rare_and_intervals_cover(examples):
    found = count(Case("flat", 5, examples, 0.0), 100, np.random.default_rng(0))
    assert found["better"] + found["worse"] <= 0.09
    assert found["covered"] >= 0.92


def test_a_large_effect_is_found_and_a_small_one_is_not_called_equal():
    found = count(Case("peaked", 10, None, 0.02), 30, np.random.default_rng(1))
    assert found["better"] >= 0.9
    found = count(Case("peaked", 10, None, 0.01), 30, np.random.default_rng(2))
    assert found["equal"] == 0


@pytest.mark.parametrize(("first", "last"), LOOKS)
@pytest.mark.parametrize(
    "rule", [RULES["one look at the first seeds"], UNTIL_DECIDED], ids=["one", "two"]
)
def test_verdicts_on_fresh_seeds_are_right_as_often_as_they_say(rule, first, last):
    drawn = DEVIATION * np.random.default_rng(0).standard_normal((8000, last))
    none = follow(rule, drawn, first, 0.0)
    assert none["better"] <= 0.03
    assert none["worse"] <= 0.03
    assert 0.94 <= none["covered"] <= 0.965
    some = follow(rule, drawn + 0.01, first, 0.01)
    assert some["worse"] <= 0.002
    assert some["equal"] <= 0.005
    assert 0.94 <= some["covered"] <= 0.98


def test_a_second_look_finds_more_and_looking_after_each_seed_finds_what_is_not_there():
    drawn = DEVIATION * np.random.default_rng(1).standard_normal((4000, 20))
    once, twice = (
        follow(rule, drawn + 0.01, 5, 0.01)
        for rule in (RULES["one look at the first seeds"], UNTIL_DECIDED)
    )
    assert twice["better"] > 2 * once["better"]
    assert 5 < twice["seeds"] < 20
    each = follow(RULES["a look after each, 95 % each"], drawn, 5, 0.0)
    assert each["better"] + each["worse"] > 0.15
    valid = follow(RULES["a look after each, always valid"], drawn, 5, 0.0)
    assert valid["better"] + valid["worse"] < 0.05


def test_the_simulated_rule_is_the_reports():
    drawn = 0.004 + DEVIATION * np.random.default_rng(2).standard_normal((40, 10))
    found = follow(UNTIL_DECIDED, drawn, 4, 0.0)
    mine = []
    for values in drawn:
        looks = [verdict(mean_interval(values[:n], level=0.975), 0.005) for n in (4, 10)]
        mine.append(looks[0] if looks[0] != "undecided" else looks[1])
    for name in ("better", "worse", "equal", "undecided"):
        assert 40 * found[name] == pytest.approx(mine.count(name))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_steps_read_off_a_grid_are_held_as_often_as_they_say(grid, spread):
    found = arrivals.count(GRIDS[grid], 3, spread, 500, np.random.default_rng(0))
    assert found["steps"] >= 0.93
    assert found["ratio"] >= 0.93


def test_readings_alone_claim_too_much():
    found = arrivals.count(GRIDS["at each doubling"], 5, 0.1, 500, np.random.default_rng(0))
    assert found["readings"] < 0.5


def test_pococks_boundary_is_the_published_one():
    # Jennison & Turnbull (2000), table 2.1: C_P(2, 0.05) = 2.178, with half the data at each look.
    assert pocock(5, 10) == pytest.approx(1 - 2 * 0.014703, abs=2e-4)
