"""Verdicts on simulated studies, whose effects are known."""

import numpy as np
import pytest

from experiments.bench.verdicts import Case, count


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
