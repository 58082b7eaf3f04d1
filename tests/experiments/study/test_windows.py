"""Evaluations are dense early, and measured pairs spread over the steps between any two."""

import numpy as np
import pytest

from experiments.study.windows import evaluation_steps, plain_steps


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [
        (4, 2, [0, 2, 4]),
        (6, 3, [0, 3, 6]),
        (8, 4, [0, 2, 4, 8]),
        (9, 9, [0, 2, 9]),
        (40, 20, [0, 2, 5, 10, 20, 40]),
        (500, 250, [0, 2, 5, 10, 20, 50, 100, 250, 500]),
        (2000, 1000, [0, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]),
    ],
)
def test_evaluations_are_dense_early_and_then_even(steps, every, expected):
    assert evaluation_steps(steps, every) == expected


def test_every_window_has_a_pair_and_is_no_longer_than_the_usual():
    for every in range(2, 400):
        windows = np.diff(evaluation_steps(2 * every, every))
        assert windows.min() >= 2, every
        assert windows.max() == every


@pytest.mark.parametrize(
    ("window", "pairs"), [(2, 1), (3, 1), (4, 2), (5, 2), (20, 2), (149, 2), (150, 3), (250, 5)]
)
@pytest.mark.parametrize("longest", [250, 1000])
def test_measured_pairs_spread_over_a_window_of_any_length(window, pairs, longest):
    numbers = plain_steps(window, longest)
    plain = numbers[numbers >= 0]
    assert plain.sum() + 2 * len(plain) == window
    assert len(plain) == pairs
    assert plain.max() - plain.min() <= 1
    assert len(numbers) == len(plain_steps(longest, longest))
    np.testing.assert_array_equal(numbers[:pairs], plain)
