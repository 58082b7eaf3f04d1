"""Arora, Li & Lyu 2019: weights before batch norm can be trained at any learning rate."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import (
    Check,
    Claim,
    Line,
    Outcome,
    Plot,
    Setting,
    at_least,
    at_most,
    once,
)
from experiments.papers.tools.digits import (
    NUM_PIXELS,
    Images,
    digits,
    hidden_kernels,
    initial,
    loss,
    network,
    replace_hidden,
)
from experiments.papers.tools.mlp import NUM_CLASSES
from experiments.papers.tools.spread import combinations, spread
from experiments.papers.tools.stand_ins import stand_ins
from jbn import Standard

_WIDTHS = (64, 64)
_EXAMPLES = 1000
_OTHER_RATE = 0.1
# Of 2.3 at the start. Too high a rate may end in NaN, or in dead units and a finite loss.
_TRAINED, _UNTRAINED = 0.1, 1.0
_RATES = 10.0 ** np.arange(-2, 5)
_LARGE = 1000
_BEGUN = 50  # steps, after which the gradient's decrease is measured


class _Trained(NamedTuple):
    loss: jax.Array
    """After the last step."""
    norm: jax.Array
    """Of the weights of the second hidden layer."""
    gradient: jax.Array
    """`(steps,)`: |w| |dL/dw| of all hidden weights, the gradient at weights of length one."""


def train(norm: Any, steps: int, images: Images, seed: jax.Array, rate: jax.Array) -> _Trained:
    """Full-batch gradient descent at `rate` for the hidden kernels, at 0.1 for all else."""
    model = network(_WIDTHS, norm)
    params = initial(model, jax.random.key(seed))
    rates = jax.tree.map(lambda _: jnp.float32(_OTHER_RATE), params)
    rates = replace_hidden(rates, [rate.reshape(1, 1)] * len(_WIDTHS))

    def step(params: Any, _: None) -> tuple[Any, jax.Array]:
        gradient, _ = jax.grad(lambda p: loss(model, p, images), has_aux=True)(params)
        lengths = [
            jnp.linalg.norm(w) * jnp.linalg.norm(g)
            for w, g in zip(hidden_kernels(params), hidden_kernels(gradient))
        ]
        moved = jax.tree.map(lambda p, r, g: p - r * g, params, rates, gradient)
        return moved, jnp.linalg.norm(jnp.stack(lengths))

    params, lengths = jax.lax.scan(step, params, length=steps)
    last = hidden_kernels(params)[1]
    return _Trained(loss(model, params, images)[0], jnp.linalg.norm(last), lengths)


@once
def _trained(setting: Setting, norm: Any) -> _Trained:
    """Of `(seeds, rates, ..)`."""
    images = digits(_EXAMPLES)
    centred = Images(images.x - images.x.mean(axis=0), images.labels)
    seeds, rates = _seeds(setting), _rates(setting)
    run = partial(train, norm, _steps(setting))
    found = spread(run, *combinations(seeds, rates), given=[centred])
    return jax.tree.map(lambda a: a.reshape(len(seeds), len(rates), *a.shape[1:]), found)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=4, quick=3)


def _steps(setting: Setting) -> int:
    return setting.pick(full=700, quick=300)


def _rates(setting: Setting) -> np.ndarray:
    return (_RATES[1::2] if setting.quick else _RATES).astype(np.float32)


def decrease(lengths: np.ndarray) -> np.ndarray:
    """The power of T by which min over t <= T of a gradient's length falls after 50 steps.

    Args:
        lengths: `(.., steps)`.

    Returns:
        `(..)`.
    """
    least = np.minimum.accumulate(lengths, axis=-1)
    times = lengths.shape[-1] / _BEGUN
    return np.log(least[..., -1] / least[..., _BEGUN - 1]) / np.log(times)


def measure(setting: Setting, norm: Any = Standard()) -> Outcome:
    """The loss at the end over seven decades of learning rates."""
    rates, steps = _rates(setting), _steps(setting)
    without, with_norm = _trained(setting, None), _trained(setting, norm)
    # A loss that is no number did not train.
    lost = np.where(np.isfinite(without.loss), without.loss, np.inf)
    checks = [
        Check(
            f"largest loss after {steps} steps, over all rates from {rates[0]:g} to {rates[-1]:g}",
            with_norm.loss.max(axis=1),
            at_most(_TRAINED),
            "regression",
        ),
        Check(
            f"no norm: smallest loss at rates from {_LARGE:g}",
            lost[:, rates >= _LARGE].min(axis=1),
            at_least(_UNTRAINED),
            "theory",
            control=True,
        ),
    ]
    power = decrease(with_norm.gradient).mean(axis=0)
    remarks = [
        f"At its own best rate the network without batch norm has the lower loss, "
        f"{lost.min(axis=1).mean():.2g} against {with_norm.loss.min(axis=1).mean():.2g}.",
        "The theorem bounds the smallest gradient of the first T steps, at weights of length one, "
        f"by about T^(-1/2) for large T. From step {_BEGUN} to {steps} it fell as "
        f"T^({power[0]:.2f}) at the smallest rate, T^({power[-1]:.2f}) at the largest and "
        f"T^({power.max():.2f}) where it fell least; so few steps do not test a bound.",
    ]
    label = "learning rate of the hidden weights"
    arms = (("no norm", without), ("batch norm", with_norm))
    plots = [
        Plot(
            "Where a line ends the loss is not finite",
            label,
            f"loss after {steps} steps",
            [Line(name, rates, found.loss) for name, found in arms],
            log="xy",
        ),
        Plot(
            "Weights grow until their rate fits",
            label,
            "|w| of the second layer",
            [Line(name, rates, found.norm) for name, found in arms],
            log="xy",
        ),
    ]
    return Outcome(checks, plots, remarks)


def _setup(setting: Setting) -> str:
    rates = _rates(setting)
    layers = "-".join(map(str, (NUM_PIXELS, *_WIDTHS, NUM_CLASSES)))
    return (
        f"{_EXAMPLES} digits, centred, {layers} ReLU, no epsilon; {_steps(setting)} steps of "
        f"full-batch gradient descent, learning rate {rates[0]:g} to {rates[-1]:g} ({len(rates)} "
        f"of them) for the hidden weights and {_OTHER_RATE} for all others; "
        f"{len(_seeds(setting))} seeds."
    )


ANY_RATE = Claim(
    name="arora-any-rate",
    sentence="Weights before batch norm train at any learning rate, over six orders of magnitude; "
    "without batch norm large rates diverge.",
    citation="Arora, Li & Lyu 2019, Theoretical Analysis of Auto Rate-Tuning by Batch "
    "Normalization, ICLR, arXiv:1812.03981",
    setup=_setup,
    formula="training loss after the last step",
    measure=measure,
    registered="2026-11-22",
    changes=(
        "2026-11-28: of the network without norm the largest rate that trains had to be 10 or "
        "less, which was measured exactly; its loss at rates from 1000 must be 1 or more, because "
        "the claim says that large rates diverge, and not from where.",
    ),
    stand_ins=stand_ins(measure, must_fail=("no norm",)),
)
