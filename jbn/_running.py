"""The running average of batch statistics, which inference reads."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jbn._arrays import check_number
from jbn._sharding import sharded_like
from jbn._types import Moments, RunningStats


def update_running(
    stats: RunningStats, moments: Moments, *, momentum: float | Float[Array, ""]
) -> RunningStats:
    r"""Moves the running statistics towards those of a batch.

    $$\text{new} = m \cdot \text{old} + (1 - m) \cdot \text{batch}$$

    Args:
      stats: the running mean and variance. Their types do not change.
      moments: of a batch. Without evidence (size zero, or moments that are not finite, as after
        a NaN in the data) a feature keeps its old statistics; one example says nothing of the
        variance, which then stays too.
      momentum: the weight kept on the *old* value, in [0, 1]: Flax's sense. PyTorch's 0.1 is 0.9
        here. May be traced, a schedule for example (`warmup_momentum`).

    Raises:
      TypeError, ValueError: if `momentum` is not a number in [0, 1].

    Ioffe & Szegedy 2015 (arXiv:1502.03167), section 3.1, keeps such averages.

    >>> import jax.numpy as jnp
    >>> from jbn import Moments
    >>> old = RunningStats(mean=jnp.array([0.0]), var=jnp.array([1.0]))
    >>> batch = Moments(mean=jnp.array([10.0]), var=jnp.array([3.0]), size=jnp.array([32.0]))
    >>> new = update_running(old, batch, momentum=0.75)
    >>> print(new.mean, new.var)
    [2.5] [1.5]
    """
    check_number("momentum", momentum, low=0.0, high=1.0)
    # 1 - momentum is taken here, in double precision where momentum is a Python number.
    return blend(stats, moments, momentum, 1 - momentum)


def blend(stats: RunningStats, moments: Moments, keep, take) -> RunningStats:
    """`update_running` by its two weights."""
    moments = jax.tree.map(lambda leaf: sharded_like(leaf, stats.mean), lax.stop_gradient(moments))
    sound = jnp.isfinite(moments.mean) & jnp.isfinite(moments.var)

    def move(old, new, evidence):
        k, t = (jnp.asarray(weight, new.dtype) for weight in (keep, take))
        moved = k * old.astype(new.dtype) + t * new
        return jnp.where(evidence, moved.astype(old.dtype), old)

    return RunningStats(
        mean=move(stats.mean, moments.mean, sound & (moments.size > 0)),
        var=move(stats.var, moments.var, sound & (moments.size > 1)),
    )


def warmup_momentum(step, momentum: float = 0.99) -> Float[Array, ""]:
    r"""A momentum under which the running average is exact from the first step.

    $$m_t = \min\left(m, \frac{t}{t + 1}\right)$$

    While $t / (t + 1)$ is the smaller, the running average is the plain average of the batches so
    far, with no memory of the initial 0 and 1; after that, it is the usual exponential one.

    Args:
      step: batches seen before this one, 0 at first; may be traced.
      momentum: the weight kept on the old value in the long run, in [0, 1].

    >>> print([round(float(warmup_momentum(step, 0.75)), 3) for step in range(5)])
    [0.0, 0.5, 0.667, 0.75, 0.75]
    """
    check_number("momentum", momentum, low=0.0, high=1.0)
    step = jnp.asarray(step, jnp.float32)
    return jnp.minimum(jnp.asarray(momentum, jnp.float32), step / (step + 1))


def debiased_momentum(step, momentum: float = 0.99) -> Float[Array, ""]:
    r"""A momentum under which the running average is a zero-debiased one, as in Haiku and Adam.

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
    check_number("momentum", momentum, low=0.0, high=1.0)
    step = jnp.asarray(step, jnp.float32)
    log = jnp.log(jnp.asarray(momentum, jnp.float32))
    # expm1, since m^t is close to 1 where m is; at m = 1 this is the limit, the plain average.
    ratio = jnp.where(log < 0, jnp.expm1(log) / jnp.expm1((step + 1) * log), 1 / (step + 1))
    return 1 - ratio
