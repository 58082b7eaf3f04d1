"""De & Smith 2020: what lets deep residual networks train, with batch norm and with SkipInit."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from experiments.papers.claim import (
    Check,
    Claim,
    Line,
    Outcome,
    Plot,
    Setting,
    StandIn,
    at_least,
    at_most,
    once,
)
from experiments.papers.claims.bjorck_2018_convolutional import largest_rate
from experiments.papers.tools.mlp import MLP, NUM_CLASSES, apply_norm
from experiments.papers.tools.stand_ins import BATCH_NORM, stand_ins
from experiments.papers.tools.training import Task, accuracy_by_rate, standardized
from experiments.study.data import load
from experiments.study.networks import Dense

_BLOCKS = 32
_WIDTH = 64
_BATCH_SIZE = 64
_RATES = (0.02, 0.05, 0.12, 0.3, 0.8, 2, 5, 12)
_QUICK_RATES = (0.02, 0.16, 1.28, 10)
_LEARNS = 0.8


class Arm(NamedTuple):
    """What stands in the blocks."""

    norm: Any
    scalar: float | None = None
    """What a learnt scalar on each branch begins with; None for no scalar."""


class Block(MLP):
    """x + s relu(norm(x)) W, s a scalar that is learnt, or 1."""

    scalar: float | None = None

    @nn.compact
    def __call__(  # type: ignore[override]
        self, x: jax.Array, use_running_average: bool, momentum: float | None
    ) -> tuple[jax.Array, None]:
        """As `nn.scan` calls it."""
        norm = self._norm(1, use_running_average)
        h = apply_norm(norm, x, momentum)
        branch = Dense(x.shape[-1], self.kernel_init, name="hidden_1")(self.activation(h))
        if self.scalar is not None:
            branch = branch * self.param("scalar", nn.initializers.constant(self.scalar), ())
        return x + branch, None


class Residual(MLP):
    """A Dense layer, as many blocks as `widths` has, a norm and a Dense layer of class scores."""

    scalar: float | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, *, use_running_average: bool, momentum: float | None = None
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Class scores, and nothing of the activations."""
        x = Dense(self.widths[0], self.kernel_init, name="input")(x)
        # One block compiled, not all of them.
        blocks = nn.scan(
            Block,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,  # type: ignore[arg-type]
            length=len(self.widths),
        )
        fields = {name: getattr(self, name) for name in ("widths", "activation", "kernel_init")}
        block = blocks(**fields, norm=self.norm, scalar=self.scalar, name="blocks")
        x, _ = block(x, use_running_average, momentum)
        x = apply_norm(self._norm(1, use_running_average), x, momentum)
        scores = Dense(NUM_CLASSES, self.kernel_init, name="output")(self.activation(x))
        return scores, ()


def residual_task(arm: Arm, blocks: int) -> Task:
    """A residual network with He's initialisation of every branch."""
    he = jax.nn.initializers.he_normal()
    model = Residual((_WIDTH,) * blocks, jax.nn.relu, he, arm.norm, scalar=arm.scalar)
    return Task(model, _BATCH_SIZE)


def _rates(setting: Setting) -> np.ndarray:
    return np.array(_QUICK_RATES if setting.quick else _RATES, np.float32)


def _steps(setting: Setting) -> int:
    return setting.pick(200, 100)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=3, quick=3)


@once
def _accuracies(setting: Setting, arms: tuple[Arm, ...]) -> list[np.ndarray]:
    """For each arm `(seeds, rates)`."""
    images, blocks = standardized(load("digits")), _BLOCKS
    tasks = [residual_task(arm, blocks) for arm in arms]
    return accuracy_by_rate(tasks, _steps(setting), images, _seeds(setting), _rates(setting))


def measure(setting: Setting, norm: Any = BATCH_NORM, *, scalar: float = 0.0) -> Outcome:
    """Who trains at all, and up to which rate: no norm, batch norm, SkipInit."""
    ours = Arm(BATCH_NORM), Arm(None), Arm(None, 0.0)
    with_norm, without, skip_init = _accuracies(setting, ours)
    if norm != BATCH_NORM:
        (with_norm,) = _accuracies(setting, (Arm(norm),))
    if scalar != 0:
        (skip_init,) = _accuracies(setting, (Arm(None, scalar),))
    rates = _rates(setting)
    reached = [largest_rate(rates, found, _LEARNS) for found in (skip_init, with_norm)]
    risen = reached[1] - reached[0]
    best = "accuracy at the best rate"
    checks = [
        Check(f"batch norm: {best}", with_norm.max(axis=1), at_least(_LEARNS), "published"),
        Check(f"SkipInit, no norm: {best}", skip_init.max(axis=1), at_least(_LEARNS), "published"),
        Check(
            "powers of ten by which the largest usable rate with batch norm is above SkipInit's",
            risen,
            at_least(0.3),
            "published",
        ),
        Check(f"no norm: {best}", without.max(axis=1), at_most(_LEARNS), "published", control=True),
    ]
    arms = {"no norm": without, "batch norm": with_norm, "SkipInit, no norm": skip_init}
    plot = Plot(
        f"A residual network of {_BLOCKS} blocks",
        "learning rate",
        "test accuracy",
        [Line(name, rates, found) for name, found in arms.items()],
        log="x",
    )
    return Outcome(checks, [plot])


def _setup(setting: Setting) -> str:
    rates = ", ".join(f"{rate:.2g}" for rate in _rates(setting))
    return (
        f"Digits, standardised; {_BLOCKS} blocks x <- x + s relu(norm(x)) W of width {_WIDTH}, "
        "s = 1, or with SkipInit a learnt scalar from 0; He initialisation, SGD, batch size "
        f"{_BATCH_SIZE}, {_steps(setting)} steps, {len(_seeds(setting))} seeds; learning rates "
        f"{rates}. Accuracy on the test images, with the population's statistics."
    )


SKIP_INIT = Claim(
    name="de-skip-init",
    sentence="A deep residual network trains without a norm once a scalar that begins at 0 is on "
    "each branch, as it does with batch norm; batch norm bears larger rates.",
    citation="De & Smith 2020, Batch Normalization Biases Residual Blocks Towards the Identity "
    "Function in Deep Networks, NeurIPS, arXiv:2002.10444, sections 4 and 5",
    setup=_setup,
    formula=f"accuracy of {_LEARNS:g} or more counts as trained; log10 of the largest rate that "
    "trains, with batch norm less with SkipInit: a factor of two counts",
    measure=measure,
    registered="2026-11-28",
    stand_ins=[
        *stand_ins(measure, must_fail=("no norm",)),
        StandIn("scalars that begin at 1", partial(measure, scalar=1.0), must_fail=True),
    ],
)
