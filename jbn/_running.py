"""The running average of batch statistics, which inference reads."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jbn._numerics.sharding import sharded_like
from jbn._numerics.values import (
    as_moments,
    as_record,
    check_momentum,
    check_number,
    numbers_to_device,
)
from jbn._types import Moments, RunningStats


def update_running(
    stats: RunningStats, moments: Moments, *, momentum: float | Float[Array, ""]
) -> RunningStats:
    r"""Moves the running statistics towards those of a batch.

    $$\text{new} = m \cdot \text{old} + (1 - m) \cdot \text{batch}$$

    Args:
      stats: the running mean and variance. Their types do not change.
      moments: of a batch. Without evidence (size zero, or moments that are not finite, as after
        a NaN in the data) a feature keeps its old statistics; one example has no
        variance, so the old one stays too.
      momentum: the weight kept on the *old* value, in [0, 1]: Flax's sense. PyTorch's 0.1 is 0.9
        here. May be traced, a schedule for example (`warmup_momentum`).

    Raises:
      TypeError, ValueError: if `momentum` is not a number in [0, 1], or if `moments` have another
        shape than `stats`.

    Ioffe & Szegedy 2015 (arXiv:1502.03167), section 3.1, keeps such averages.

    >>> import jax.numpy as jnp
    >>> from jbn import Moments
    >>> old = RunningStats(mean=jnp.array([0.0]), var=jnp.array([1.0]))
    >>> batch = Moments(mean=jnp.array([10.0]), var=jnp.array([3.0]), size=jnp.array([32.0]))
    >>> new = update_running(old, batch, momentum=0.75)
    >>> print(new.mean, new.var)
    [2.5] [1.5]
    """
    momentum = check_momentum(momentum)
    stats = as_record("stats", stats, RunningStats, complex_mean=True)
    moments = as_moments(moments, of=stats)
    if jnp.iscomplexobj(moments.mean) and not jnp.iscomplexobj(stats.mean):
        raise TypeError("moments.mean is complex, stats.mean is real: its imaginary part is lost.")
    with numbers_to_device():
        return _update(stats, moments, *update_weights(momentum))


def update_weights(momentum):
    """Returns the weights of the old and the new statistics.

    The second one is in double precision where `momentum` is a Python number.
    """
    return momentum, 1 - momentum


def update_by_weights(stats: RunningStats, moments: Moments, old_weight, new_weight):
    """Does what `update_running` does, by the weights of old and new."""
    moments = jax.tree.map(lambda leaf: sharded_like(leaf, stats.mean), lax.stop_gradient(moments))
    sound = jnp.isfinite(moments.mean) & jnp.isfinite(moments.var)

    def move(old, new, evidence):
        w_old, w_new = (jnp.asarray(w, new.dtype) for w in (old_weight, new_weight))
        moved = w_old * old.astype(new.dtype) + w_new * new
        return jnp.where(evidence, moved.astype(old.dtype), old)

    return RunningStats(
        mean=move(stats.mean, moments.mean, sound & (moments.size > 0)),
        var=move(stats.var, moments.var, sound & (moments.size > 1)),
    )


_update = jax.jit(update_by_weights)


def warmup_momentum(step: Any, momentum: float = 0.99) -> Float[Array, ""]:
    r"""Returns a momentum under which the running average is exact from the first step.

    $$m_t = \min\left(m, \frac{t}{t + 1}\right)$$

    While $t / (t + 1)$ is the smaller, the running average is the plain average of the batches so
    far, with no memory of the initial 0 and 1; after that, it is the usual exponential one.

    Args:
      step: batches seen before this one, 0 at first; may be traced.
      momentum: the weight kept on the old value in the long run, in [0, 1].

    >>> print([round(float(warmup_momentum(step, 0.75)), 3) for step in range(5)])
    [0.0, 0.5, 0.667, 0.75, 0.75]
    """
    with numbers_to_device():
        return _warmup(_check_step(step), check_momentum(momentum))


@jax.jit
def _warmup(step, momentum):
    step = jnp.asarray(step, jnp.float32)
    return jnp.minimum(jnp.asarray(momentum, jnp.float32), step / (step + 1))


def _check_step(step):
    return check_number("step", step, low=0.0, high=float("inf"))


def debiased_momentum(step: Any, momentum: float = 0.99) -> Float[Array, ""]:
    r"""Returns a momentum under which the running average is zero-debiased, as in Haiku and Adam.

    $$m_t = 1 - \frac{1 - m}{1 - m^{t + 1}}$$

    From these the running average is the average of the batches so far with weights $m^0, m^1,
    \dots$ from the last one back, and no memory of the initial 0 and 1. `warmup_momentum` weighs
    the first batches alike instead.

    Args:
      step: batches seen before this one, 0 at first; may be traced.
      momentum: the weight kept on the old value in the long run, in [0, 1].

    Kingma & Ba 2015 (arXiv:1412.6980), section 3.

    >>> print([round(float(debiased_momentum(step, 0.75)), 3) for step in range(5)])
    [0.0, 0.429, 0.568, 0.634, 0.672]
    """
    with numbers_to_device():
        return _debiased(_check_step(step), check_momentum(momentum))


@jax.jit
def _debiased(step, momentum):
    steps = jnp.asarray(step, jnp.float32) + 1
    log = jnp.log(jnp.asarray(momentum, jnp.float32))
    # At momentum 1 the ratio is its limit, 1 / steps: that of any other log would be 0 / 0.
    nonzero = jnp.where(log < 0, log, -1)
    # expm1, since m^t is close to 1 where m is.
    return 1 - jnp.where(log < 0, jnp.expm1(nonzero) / jnp.expm1(steps * nonzero), 1 / steps)
