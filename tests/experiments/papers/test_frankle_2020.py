"""What is trained and what stays: gamma and beta, or as many weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.papers.claims import frankle_2020
from experiments.papers.tools.training import begin, relu_task, standardized
from experiments.study.data import load
from jbn import Standard


@pytest.fixture(scope="module")
def params():
    images = standardized(load("digits"))
    return begin(relu_task(2, Standard(), 12), images, jnp.uint32(0), jnp.float32(0.1)).params


def test_two_weights_of_each_unit_stand_against_gamma_and_beta(params):
    affine = frankle_2020.affine_only(params, jnp.uint32(0))
    weights = frankle_2020.random_weights(params, jnp.uint32(0))
    count = lambda tree: sum(float(leaf.sum()) for leaf in jax.tree.leaves(tree))  # noqa: E731
    assert count(affine) == count(weights) == 2 * 2 * 12
    for i in (1, 2):
        assert count(affine[f"norm_{i}"]) == 24
        per_unit = weights[f"hidden_{i}"]["kernel"].sum(axis=1)
        np.testing.assert_array_equal(per_unit, np.full(12, 2))
    others = frankle_2020.random_weights(params, jnp.uint32(1))
    assert (others["hidden_1"]["kernel"] != weights["hidden_1"]["kernel"]).any()


def test_small_gammas_are_counted_by_size_and_not_by_sign():
    params = {
        "norm_1": {"scale": jnp.array([0.5, -0.5]), "bias": jnp.zeros(2)},
        "norm_2": {"scale": jnp.array([-0.005, 0.02]), "bias": jnp.zeros(2)},
    }
    assert frankle_2020.small_share(params) == 0.25
    assert np.isnan(frankle_2020.small_share({"output": {"bias": jnp.zeros(2)}}))
