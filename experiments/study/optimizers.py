"""Optimizers of a study: functions of a learning rate that return an optax transformation.

Any such function will do, `lambda rate: optax.lion(rate)`. The rate it gets is a number, or a
schedule where the study has warm-up or decay; optax takes both. Numbers of those here may be tuples
of several values, which a study compares: `AdamW(weight_decay=(0.0, 0.1))`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import optax

from experiments.study.values import (
    below_one,
    check,
    check_flags,
    not_negative,
    one_or_several,
    positive,
)

Optimizer = Callable[[Any], optax.GradientTransformation]

# What an optimizer may have several values of, by the name of a study: it has a `momentum` itself.
NUMBERS = {
    "weight_decay": "weight_decay",
    "optimizer_momentum": "momentum",
    "b1": "b1",
    "b2": "b2",
    "eps": "eps",
}


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent, with heavy-ball momentum where `momentum` is not 0.

    `weight_decay * w` is added to the gradient, as in PyTorch: of kernels alone, or with
    `decay_norms` of all parameters, scales and biases included.

    Raises:
        ConfigError: for a field of the wrong type or out of range; so in the other optimizers.
    """

    momentum: float | tuple[float, ...] = 0.0
    nesterov: bool = False
    weight_decay: float | tuple[float, ...] = 0.0
    decay_norms: bool = False

    def __post_init__(self) -> None:
        _check_numbers(self, "momentum", "weight_decay")
        check_flags(self, "nesterov", "decay_norms")

    def __call__(self, rate: Any) -> optax.GradientTransformation:
        """Returns `optax.sgd` at this rate."""
        momentum: Any = None if _is_zero(self.momentum) else self.momentum
        step = optax.sgd(rate, momentum=momentum, nesterov=self.nesterov)
        if _is_zero(self.weight_decay):
            return step
        decay: Any = self.weight_decay
        return optax.chain(optax.add_decayed_weights(decay, _decayed(self)), step)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980)."""

    b1: float | tuple[float, ...] = 0.9
    b2: float | tuple[float, ...] = 0.999
    eps: float | tuple[float, ...] = 1e-8

    def __post_init__(self) -> None:
        _check_numbers(self, "b1", "b2", "eps")

    def __call__(self, rate: Any) -> optax.GradientTransformation:
        """Returns `optax.adam` at this rate."""
        numbers: Any = {name: getattr(self, name) for name in ("b1", "b2", "eps")}
        return optax.adam(rate, **numbers)


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101).

    Kernels alone decay, or with `decay_norms` all parameters, scales and biases included.
    """

    weight_decay: float | tuple[float, ...] = 0.01
    b1: float | tuple[float, ...] = 0.9
    b2: float | tuple[float, ...] = 0.999
    eps: float | tuple[float, ...] = 1e-8
    decay_norms: bool = False

    def __post_init__(self) -> None:
        _check_numbers(self, "b1", "b2", "eps", "weight_decay")
        check_flags(self, "decay_norms")

    def __call__(self, rate: Any) -> optax.GradientTransformation:
        """Returns `optax.adamw` at this rate."""
        numbers: Any = {name: getattr(self, name) for name in ("b1", "b2", "eps", "weight_decay")}
        return optax.adamw(rate, **numbers, mask=_decayed(self))


def scheduled(rate: Any, schedule: str, warmup: int, steps: int) -> Any:
    """Returns the learning rate over the steps, `rate` itself where it is constant.

    Linear from rate / warmup at the first step to `rate` at step `warmup`; then constant, or
    falling to zero along half a cosine.
    """
    if schedule == "constant" and not warmup:
        return rate
    decay = optax.constant_schedule(1.0)
    if schedule == "cosine":
        decay = optax.cosine_decay_schedule(1.0, steps - warmup)
    if warmup:
        rise = optax.linear_schedule(1 / warmup, 1.0, warmup - 1)
        decay = optax.join_schedules([rise, decay], [warmup])
    return lambda count: rate * decay(count)


def _decayed(optimizer: Any) -> Callable[[Any], Any] | None:
    """Returns what says which parameters decay: kernels, or None for all."""
    if optimizer.decay_norms:
        return None
    return lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)


_ALLOWED = {
    "eps": (positive, "a positive number"),
    "weight_decay": (not_negative, "a number from 0"),
}


def _check_numbers(optimizer: Any, *fields: str) -> None:
    for field in fields:
        if isinstance(getattr(optimizer, field), jax.Array):  # a number that a program is given
            continue
        allows, needed = _ALLOWED.get(field, (below_one, "a number from 0 to below 1"))
        check(optimizer, field, one_or_several(allows), f"{needed}, or a tuple of distinct ones")


def _is_zero(number: Any) -> bool:
    return isinstance(number, int | float) and number == 0


WORDS: dict[str, Optimizer] = {
    "sgd": SGD(),
    "momentum": SGD(momentum=0.9),
    "adam": Adam(),
    "adamw": AdamW(),
}
