"""The learning rate of another batch size."""

import pytest

from experiments.papers.claims.hoffer_2017 import rate_of


def test_the_rate_goes_with_the_root_of_the_batch_size():
    assert rate_of(1024) == 0.4
    assert rate_of(256) == pytest.approx(0.2)
