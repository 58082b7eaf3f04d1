"""The rate that a norm is judged at."""

import jax
import numpy as np

from experiments.papers.claims.zhu_2025 import best, residual
from experiments.papers.tools.stand_ins import NORMS


def test_the_rate_of_the_lowest_loss_whatever_its_accuracy():
    loss = np.array([[0.5, 0.3], [0.1, 0.2], [0.0, np.nan]])
    accuracy = np.array([[0.9, 0.9], [0.7, 0.8], [1.0, 0.1]])
    chosen, index = best(np.stack([loss, accuracy], axis=-1))
    assert index == 1
    assert chosen.tolist() == [0.7, 0.8]


def test_residual_blocks():
    x = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    model = residual(NORMS["dynamic tanh"]).model
    variables = model.init(jax.random.key(0), x, use_running_average=True)
    scores, added = model.apply(variables, x, use_running_average=True)
    dense = {n: p for n, p in variables["params"].items() if not n.startswith("norm_")}
    assert sum(name.startswith("norm_") for name in variables["params"]) == len(added) + 1

    def layer(name, h):
        return h @ dense[name]["kernel"].mT  # biases are zero

    h = layer("input", x)
    for i in range(1, len(added) + 1):
        h = h + layer(f"back_{i}", np.maximum(layer(f"hidden_{i}", np.tanh(0.5 * h)), 0))
    np.testing.assert_allclose(scores, layer("output", np.tanh(0.5 * h)), rtol=1e-4, atol=1e-4)
