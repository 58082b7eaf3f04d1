"""De & Smith 2020: batch norm turns a deep residual network, at first, into nearly the identity."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, near
from experiments.papers.tools.deep import NO_EPSILON
from experiments.papers.tools.spread import spread_each
from jbn import batch_norm, init

_BLOCKS = 32
_BATCH_SIZE = 256


class _Blocks(NamedTuple):
    """Of each block, mean over units."""

    skip: jax.Array
    """Variance over the batch of what goes in."""
    branch: jax.Array
    """That of what the branch adds."""
    second_moment: jax.Array
    """Of what comes out."""


def residual_pass(norm: bool, width: int, seed: jax.Array) -> _Blocks:
    """A random batch through random blocks x <- x + relu(BN(x)) W."""
    keys = jax.random.split(jax.random.key(seed), _BLOCKS + 1)

    def block(x: jax.Array, key: jax.Array) -> tuple[jax.Array, _Blocks]:
        kernel = jax.random.normal(key, (width, width)) * jnp.sqrt(2 / width)
        h = batch_norm(x, *init(width), epsilon=NO_EPSILON)[0] if norm else x
        branch = jax.nn.relu(h) @ kernel
        variances = jnp.mean(jnp.var(x, axis=0)), jnp.mean(jnp.var(branch, axis=0))
        x = x + branch
        return x, _Blocks(*variances, jnp.mean(jnp.square(x)))

    x = jax.random.normal(keys[0], (_BATCH_SIZE, width))
    return jax.lax.scan(block, x, keys[1:])[1]


def measure(setting: Setting) -> Outcome:
    """Variances in each block, with batch norm and without."""
    seeds = setting.seeds(full=16, quick=12)
    width = setting.pick(full=512, quick=256)
    runs = {norm: partial(residual_pass, norm, width) for norm in (True, False)}
    with_norm, without = spread_each(runs, seeds).values()
    growth = without.second_moment[:, -1] ** (1 / _BLOCKS)
    share = with_norm.branch / with_norm.skip
    checks = [
        Check(
            f"with: second moment after {_BLOCKS} blocks",
            with_norm.second_moment[:, -1],
            near(_BLOCKS + 1, absolute=1.0),
            "theory",
        ),
        Check(
            f"with: variance of the branch against the skip in block {_BLOCKS}, times {_BLOCKS}",
            _BLOCKS * share[:, -1],
            near(1.0, absolute=0.1),
            "theory",
        ),
        Check(
            "without: factor per block on the second moment",
            growth,
            near(2.0, absolute=0.15),
            "theory",
        ),
    ]
    blocks = np.arange(1, _BLOCKS + 1)
    plots = [
        Plot(
            "Variance of the branch against the skip",
            "block",
            "ratio",
            [
                Line("without", blocks, without.branch / without.skip),
                Line("with batch norm", blocks, share),
                Line("1/block", blocks, 1 / blocks, expected=True),
            ],
            log="xy",
        ),
        Plot(
            "Activations",
            "block",
            "second moment",
            [
                Line("without", blocks, without.second_moment),
                Line("2^block", blocks, 2.0**blocks, expected=True),
                Line("with batch norm", blocks, with_norm.second_moment),
                Line("1 + block", blocks, 1.0 + blocks, expected=True),
            ],
            log="y",
        ),
    ]
    return Outcome(checks, plots)


RESIDUAL = Claim(
    name="de-residual",
    sentence="In a residual network batch norm scales the branch of block l down to 1/l of the "
    "skip's variance; without it the activations double in every block.",
    citation="De & Smith 2020, Batch Normalization Biases Residual Blocks Towards the Identity "
    "Function in Deep Networks, NeurIPS, arXiv:2002.10444",
    setup="32 random blocks x <- x + relu(BN(x)) W, W ~ N(0, 2/width), width 512, 256 standard "
    "normal examples, no epsilon; 16 seeds.",
    formula="with: second moment 1 + l after block l, branch/skip 1/l; without: 2^l",
    measure=measure,
)
