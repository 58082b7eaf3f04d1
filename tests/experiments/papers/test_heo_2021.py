"""Growth of weights with momentum, and its two limits."""

import numpy as np
import pytest

from experiments.papers.claims.heo_2021 import most_growth

RNG = np.random.default_rng(0)


def _updates(gradients, momentum):
    trace, found = np.zeros(gradients.shape[1]), []
    for gradient in gradients:
        trace = momentum * trace + gradient
        found.append(trace)
    return (1 - momentum) * np.array(found)


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_the_limits(momentum):
    """Growth is `(1 + beta)/(1 - beta)` times the sum of the squares of all updates."""

    def growth(gradients, beta):
        return most_growth(beta) * np.sum(np.square(_updates(gradients, beta)))

    same, other = np.ones((3000, 1)), RNG.normal(size=(3000, 200))
    assert growth(same, momentum) / growth(same, 0.0) == pytest.approx(
        most_growth(momentum), rel=0.01
    )
    assert growth(other, momentum) / growth(other, 0.0) == pytest.approx(1, rel=0.02)


def test_growth_of_weights_orthogonal_to_their_gradients():
    rate, momentum = 0.02, 0.9
    w, trace, squares = RNG.normal(size=50), np.zeros(50), []
    begun = w @ w
    for _ in range(2000):
        gradient = RNG.normal(size=50) + 0.5
        trace = momentum * trace + gradient - w * (w @ gradient) / (w @ w)
        w = w - rate * trace
        squares.append(rate**2 * trace @ trace)
    assert w @ w - begun == pytest.approx(most_growth(momentum) * sum(squares), rel=0.02)
