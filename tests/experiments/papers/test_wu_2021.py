"""The running average without its beginning."""

import numpy as np

from experiments.papers.claims.wu_2021 import debias


def test_debiased_the_average_is_of_the_batches_alone():
    batches = np.random.default_rng(0).normal(3.0, 1.0, 20)
    average, momentum = 1.0, 0.9
    for batch in batches:
        average = momentum * average + (1 - momentum) * batch
    weights = momentum ** np.arange(20)[::-1]
    expected = np.sum(weights * batches) / np.sum(weights)
    found = debias({"var": average}, {"var": 1.0}, 20, momentum)["var"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
