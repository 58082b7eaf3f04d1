"""The growing rate that is weight decay, in a model of its own."""

import numpy as np

from experiments.papers.claims.li_2020 import growth


def test_a_scale_free_loss_cannot_tell_them_apart():
    rng = np.random.default_rng(0)
    target = rng.normal(size=5)
    rate, decay = 0.1, 0.2

    def gradient(w):
        """Of -<w, target>/|w|."""
        size = np.linalg.norm(w)
        return -(target - w * (w @ target) / size**2) / size

    w = v = rng.normal(size=5)
    for t in range(40):
        w = (1 - rate * decay) * w - rate * gradient(w)
        v = v - rate * growth(t, rate, decay) * gradient(v)
    np.testing.assert_allclose(v * (1 - rate * decay) ** 40, w, rtol=1e-10)
    assert np.linalg.norm(v) > 1.5 * np.linalg.norm(w)
