"""Data for the comparison with other frameworks: nothing is 0 or 1, and batches move."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def lenient():
    """The other frameworks rely on promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(params=[(16, 5), (6, 4, 3, 5)], ids=["dense", "images"])
def batches(request):
    """Five float32 batches, features last."""
    rng = np.random.default_rng(0)
    return [(rng.normal(k, 1 + k, request.param)).astype(np.float32) for k in range(5)]


@pytest.fixture
def affine():
    rng = np.random.default_rng(1)
    return rng.uniform(0.5, 2, 5).astype(np.float32), rng.normal(size=5).astype(np.float32)
