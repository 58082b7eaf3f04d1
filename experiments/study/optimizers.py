"""Optimizers of a study: functions of a learning rate that return an optax transformation.

Any such function will do, `lambda rate: optax.lion(rate)`. The rate it gets is a number, or a
schedule where the study has warm-up or decay; optax takes both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import optax

from experiments.study.values import below_one, check, check_flags, not_negative, positive

Optimizer = Callable[[Any], optax.GradientTransformation]


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent, with heavy-ball momentum where `momentum` is not 0.

    `weight_decay * w` is added to the gradient, as in PyTorch: of kernels alone, or with
    `decay_norms` of all parameters, scales and biases included.

    Raises:
        ConfigError: for a field of the wrong type or out of range; so in the other optimizers.
    """

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_norms: bool = False

    def __post_init__(self) -> None:
        check(self, "momentum", below_one, "a number from 0 to below 1")
        check_flags(self, "nesterov", "decay_norms")
        _check_decay(self)

    def __call__(self, rate: Any) -> optax.GradientTransformation:
        """Returns `optax.sgd` at this rate."""
        momentum = self.momentum if self.momentum else None
        step = optax.sgd(rate, momentum=momentum, nesterov=self.nesterov)
        if isinstance(self.weight_decay, int | float) and self.weight_decay == 0:
            return step
        return optax.chain(optax.add_decayed_weights(self.weight_decay, _decayed(self)), step)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980)."""

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _check_adam(self)

    def __call__(self, rate: Any) -> optax.GradientTransformation:
        """Returns `optax.adam` at this rate."""
        return optax.adam(rate, self.b1, self.b2, self.eps)


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101).

    Kernels alone decay, or with `decay_norms` all parameters, scales and biases included.
    """

    weight_decay: float = 0.01
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    decay_norms: bool = False

    def __post_init__(self) -> None:
        _check_adam(self)
        check_flags(self, "decay_norms")
        _check_decay(self)

    def __call__(self, rate: Any) -> optax.GradientTransformation:
        """Returns `optax.adamw` at this rate."""
        return optax.adamw(
            rate, self.b1, self.b2, self.eps, weight_decay=self.weight_decay, mask=_decayed(self)
        )


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


def _check_adam(optimizer: Any) -> None:
    for field in ("b1", "b2"):
        check(optimizer, field, below_one, "a number from 0 to below 1")
    check(optimizer, "eps", positive, "a positive number")


def _check_decay(optimizer: Any) -> None:
    if not isinstance(optimizer.weight_decay, jax.Array):  # a number of a program's own
        check(optimizer, "weight_decay", not_negative, "a number from 0")


WORDS: dict[str, Optimizer] = {
    "sgd": SGD(),
    "momentum": SGD(momentum=0.9),
    "adam": Adam(),
    "adamw": AdamW(),
}
