"""Gradients of weights before batch norm: the identities, and that they need batch norm."""

from functools import partial

import chex
import jax
import numpy as np

from experiments.papers.claim import Check, at_most
from experiments.papers.claims.laarhoven_2017 import gradient_pass, train
from experiments.papers.tools.digits import NO_EPSILON, Images, digits
from jbn import Standard


def test_the_inner_product_with_epsilon_is_exact():
    with jax.enable_x64(True):
        images = digits(200)
        precise = Images(images.x.astype(np.float64), images.labels)
        run = jax.jit(partial(gradient_pass, Standard()))
        with_epsilon, exact = (jax.device_get(run(precise, 0, e)) for e in (0.01, NO_EPSILON))
    assert with_epsilon.formula_error < 1e-10
    assert with_epsilon.cosine > 1e-3  # so that the formula had something to say
    assert with_epsilon.scale_error > 1e-3
    assert exact.cosine < 1e-13
    assert exact.scale_error < 1e-13


def test_only_with_batch_norm_do_weights_grow_as_predicted():
    def growth(norm):
        seen = jax.jit(partial(train, norm, 30))(digits(200), 0)
        chex.assert_tree_all_finite(seen)
        error = np.abs(seen.predicted / seen.square - 1)[-1:]
        return seen, Check("", error, at_most(1e-5), "theory").verdict

    with_norm, verdict = growth(Standard())
    assert verdict == "reproduced"
    assert (np.diff(with_norm.square) > 0).all()
    assert growth(None)[1] == "refuted"
