"""What a run has where its training loss comes down to a target."""

import numpy as np

from experiments.papers.claims.luo_2019 import at_loss


def test_between_two_looks_it_is_linear_in_the_logarithm():
    losses = np.array([[1.0, 0.1, 0.001], [1.0, 0.1, 0.05], [1.0, 0.5, 0.2], [0.01, 0.01, 0.01]])
    values = np.tile([0.5, 0.7, 0.9], (4, 1))
    found = at_loss(0.01, losses, values)
    np.testing.assert_allclose(found[0], 0.8)
    assert np.isnan(found[1:]).all()
    np.testing.assert_allclose(at_loss(0.1, losses[:1], values[:1]), 0.7)


def test_it_is_the_first_time():
    losses, values = np.array([[1.0, 0.1, 1.0, 0.1]]), np.array([[0.0, 1.0, 2.0, 3.0]])
    np.testing.assert_allclose(at_loss(np.sqrt(0.1), losses, values), 0.5)
