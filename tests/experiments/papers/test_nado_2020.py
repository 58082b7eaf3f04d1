"""What is done to the test set."""

import jax
import numpy as np

from experiments.papers.claims.nado_2020 import CORRUPTIONS

X = np.random.default_rng(0).uniform(size=(200, 9)).astype(np.float32)


def test_corruptions():
    key = jax.random.key(0)
    shown = {name: np.asarray(change(X, key)) for name, change in CORRUPTIONS.items()}
    np.testing.assert_array_equal(shown["clean"], X)
    np.testing.assert_allclose(shown["brightness"], X + 0.3, rtol=1e-6)
    np.testing.assert_allclose(shown["contrast"].mean(axis=1), X.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(shown["contrast"].std(axis=1), 0.3 * X.std(axis=1), rtol=1e-4)
    np.testing.assert_allclose((shown["noise"] - X).std(), 0.3, rtol=0.05)
