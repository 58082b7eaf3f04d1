"""Arora, Li & Lyu 2019: weights before batch norm can be trained at any learning rate."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, at_most
from experiments.papers.tools.digits import (
    Images,
    digits,
    hidden_kernels,
    initial,
    loss,
    network,
    replace_hidden,
)
from experiments.papers.tools.spread import combinations, spread_each

_WIDTHS = (64, 64)
_EXAMPLES = 1000
_OTHER_RATE = 0.1
# Of 2.3 at the start. Too high a rate may end in NaN, or in dead units and a finite loss.
_TRAINED = 0.1
_RATES = 10.0 ** np.arange(-2, 5)


class _Trained(NamedTuple):
    loss: jax.Array
    """After the last step."""
    norm: jax.Array
    """Of the weights of the second hidden layer."""


def train(norm: bool, steps: int, images: Images, seed: jax.Array, rate: jax.Array) -> _Trained:
    """Full-batch gradient descent at `rate` for the hidden kernels, at 0.1 for all else."""
    model = network(_WIDTHS, norm)
    params = initial(model, jax.random.key(seed))
    rates = jax.tree.map(lambda _: jnp.float32(_OTHER_RATE), params)
    rates = replace_hidden(rates, [rate.reshape(1, 1)] * len(_WIDTHS))

    def step(params: Any, _: None) -> tuple[Any, None]:
        gradient, _ = jax.grad(lambda p: loss(model, p, images), has_aux=True)(params)
        return jax.tree.map(lambda p, r, g: p - r * g, params, rates, gradient), None

    params, _ = jax.lax.scan(step, params, length=steps)
    return _Trained(loss(model, params, images)[0], jnp.linalg.norm(hidden_kernels(params)[1]))


def measure(setting: Setting) -> Outcome:
    """The loss at the end over seven decades of learning rates."""
    seeds = setting.seeds(full=4, quick=3)
    steps = setting.pick(full=700, quick=300)
    rates = (_RATES[1::2] if setting.quick else _RATES).astype(np.float32)
    images = digits(_EXAMPLES)
    centred = Images(images.x - images.x.mean(axis=0), images.labels)
    runs = {norm: partial(train, norm, steps) for norm in (True, False)}
    found = spread_each(runs, *combinations(seeds, rates), given=[centred])
    with_norm, without = jax.tree.map(
        lambda a: a.reshape(len(seeds), len(rates)), (found[True], found[False])
    )
    trained = np.nan_to_num(without.loss, nan=np.inf) < _TRAINED
    checks = [
        Check(
            f"with: largest loss after {steps} steps, over all rates to {rates[-1]:g}",
            with_norm.loss.max(axis=1),
            at_most(_TRAINED),
            "regression",
        ),
        Check(
            f"without: largest rate that ends with a loss below {_TRAINED}",
            np.where(trained, rates, 0).max(axis=1),
            at_most(10.0),
            "regression",
        ),
    ]
    remarks = [
        f"At its own best rate the network without batch norm has the lower loss, "
        f"{np.nanmin(without.loss, axis=1).mean():.2g} against "
        f"{with_norm.loss.min(axis=1).mean():.2g}."
    ]
    label = "learning rate of the hidden weights"
    plots = [
        Plot(
            "Where a line ends the loss is not finite",
            label,
            f"loss after {steps} steps",
            [
                Line("without", rates, without.loss),
                Line("with batch norm", rates, with_norm.loss),
            ],
            log="xy",
        ),
        Plot(
            "Weights grow until their rate fits",
            label,
            "|w| of the second layer",
            [
                Line("without", rates, without.norm),
                Line("with batch norm", rates, with_norm.norm),
            ],
            log="xy",
        ),
    ]
    return Outcome(checks, plots, remarks)


ANY_RATE = Claim(
    name="arora-any-rate",
    sentence="Weights before batch norm train at any learning rate, over six orders of magnitude; "
    "without batch norm large rates diverge.",
    citation="Arora, Li & Lyu 2019, Theoretical Analysis of Auto Rate-Tuning by Batch "
    "Normalization, ICLR, arXiv:1812.03981",
    setup="1000 digits, centred, 64-64-64-10 ReLU, no epsilon; 700 steps of full-batch gradient "
    "descent, learning rate 0.01 to 10000 for the hidden weights and 0.1 for all others; 4 seeds.",
    formula="training loss after the last step",
    measure=measure,
)
