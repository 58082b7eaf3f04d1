"""Yang et al. 2019 beyond ReLU: every nonlinearity makes gradients explode, some of them slowly."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import roots_sh_jacobi

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, StandIn, near
from experiments.papers.claims.yang_2019 import ACTIVATIONS as RELU_AND_LINEAR
from experiments.papers.claims.yang_2019 import (
    CITATION,
    DEPTH,
    FITTED,
    Activation,
    deep_pass,
    linear_rate,
)
from experiments.papers.tools.deep import factor_per_layer
from experiments.papers.tools.spread import spread_each
from experiments.papers.tools.stand_ins import DETACHED, RIVALS, stand_ins
from jbn import Standard

_ACTIVATIONS: dict[str, Activation] = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "GELU": partial(jax.nn.gelu, approximate=False),
    "ELU": jax.nn.elu,
    "leaky ReLU 0.2": partial(jax.nn.leaky_relu, negative_slope=0.2),
    "sine": jnp.sin,
}
_BATCH_SIZE = 32
_TOLERANCE = 0.15
_RADII, _ANGLES = 64, 2000


def rate(activation: Activation, batch_size: int) -> float:
    """Theorem 9: growth of |dL/dz|² per layer of `activation` in a batch of B examples.

    A unit's normalised values y are uniform on the sphere of radius sqrt(B) of those that sum to
    zero, once the layers have made all pairs of examples alike. With D_i = phi'(y_i),
    G = I - 11'/B and P = G - y y'/B, one layer multiplies the gradient's square by

        B/((B - 1)(B - 3) s²) E|G D P|²
          = B/((B - 3) s²) (E[D_1²(1 - 1/B - y_1²/B)] + E[D_1 D_2(1 + y_1 y_2)]/B)

    where s² = E[phi(y_1)²] - E[phi(y_1) phi(y_2)]. The expectations over two of the values are
    integrals over a disc, in float64.
    """
    b = batch_size
    # (y_1, y_2) come from the point (r cos a, r sin a): r² is Beta(1, (B - 3)/2), a uniform.
    squares, weights = roots_sh_jacobi(_RADII, (b - 3) / 2, 1.0)
    angles = 2 * np.pi * (np.arange(_ANGLES) + 0.5) / _ANGLES
    x = np.sqrt(squares)[:, None] * np.cos(angles)
    across = np.sqrt(squares)[:, None] * np.sin(angles)
    c = -1 / (b - 1)
    y = np.sqrt(b - 1) * np.stack([x, c * x + np.sqrt(1 - c**2) * across])
    with jax.enable_x64(True):
        phi = np.asarray(activation(jnp.asarray(y)))
        slope = np.asarray(jax.vmap(jax.grad(lambda v: activation(v)))(jnp.asarray(y.ravel())))
    (y1, y2), (phi1, phi2), (d1, d2) = y, phi, slope.reshape(y.shape)

    def mean(values: np.ndarray) -> float:
        return float(weights @ values.mean(axis=1) / weights.sum())

    variance = mean(phi1**2) - mean(phi1 * phi2)
    own = mean(d1**2 * (1 - 1 / b - y1**2 / b))
    return b / ((b - 3) * variance) * (own + mean(d1 * d2 * (1 + y1 * y2)) / b)


def _width(setting: Setting) -> int:
    return setting.pick(full=512, quick=256)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=12, quick=8)


def measure(setting: Setting, norm: Any = Standard(), linear: bool = False) -> Outcome:
    """The factor per layer of each, or with `linear` of the identity in place of each."""
    width, batch_size = _width(setting), _BATCH_SIZE
    names = list(_ACTIVATIONS)[: setting.pick(full=len(_ACTIVATIONS), quick=2)]
    used = {"identity": RELU_AND_LINEAR["linear"]} if linear else _ACTIVATIONS
    runs = {
        name: partial(deep_pass, used[name], batch_size, width, norm=norm)
        for name in (used if linear else names)
    }
    passes = spread_each(runs, _seeds(setting))
    found = {name: factor_per_layer(logs, FITTED) for name, logs in passes.items()}
    factors = [found["identity" if linear else name] for name in names]
    theory = [rate(_ACTIVATIONS[name], batch_size) for name in names]
    checks = [
        Check(
            f"{name}: logarithm of the factor per layer",
            np.log(factor),
            near(float(np.log(expected)), relative=_TOLERANCE),
            "theory",
        )
        for name, factor, expected in zip(names, factors, theory)
    ]
    places = np.arange(len(names))
    lines = [
        Line("batch norm", places, np.stack(factors, axis=1) - 1),
        Line("theory", places, np.array(theory) - 1, expected=True),
    ]
    label = "factor per layer, less 1"
    plot = Plot(f"Batch size {batch_size}", "", label, lines, log="y", categories=names)
    remarks = [
        f"In this batch linear layers have a factor of {linear_rate(batch_size):.4f} themselves: "
        "the finite batch is part of what sigmoid, nearly linear, shows.",
        "Theory is where the activations have forgotten the input. SiLU and softplus have not "
        f"after {DEPTH} layers, and grow faster.",
    ]
    return Outcome(checks, [plot], remarks)


def _describe(setting: Setting) -> str:
    return (
        f"Width {_width(setting)}, batch size {_BATCH_SIZE}, {DEPTH} random layers, the "
        f"rest as in yang-gradients; {len(_seeds(setting))} seeds."
    )


ACTIVATIONS = Claim(
    name="yang-activations",
    sentence="Batch norm makes gradients explode with every nonlinearity, slowly with nearly "
    "linear ones.",
    citation=f"{CITATION}, theorem 9",
    setup=_describe,
    formula="factor per layer on |dL/dz|² = B/((B - 1)(B - 3) s²) E|G D P|², y uniform on the "
    "sphere |y|² = B of sum 0, D = diag phi'(y), G = I - 11ᵀ/B, P = G - y yᵀ/B, "
    "s² = E[phi(y_1)²] - E[phi(y_1) phi(y_2)]; E[phi'(z)²]/Var[phi(z)] in large batches",
    measure=measure,
    group="further",
    registered="2026-11-28",
    changes=(
        "2026-11-28: was within 3 % (4 % when quick) of the large-batch factor, which let the "
        "identity pass as sigmoid; now within 15 % of the logarithm of the factor in this batch.",
        "2026-11-28: batches were of 128; of 32 since a run in which sigmoid was undecided, 0.0447 "
        "(0.0426 to 0.0468) where 0.0402 was expected. Theory is for networks much wider than the "
        "batch; the range stayed.",
    ),
    stand_ins=(
        *stand_ins(measure, {**RIVALS, **DETACHED}, must_fail=("no norm", *DETACHED)),
        StandIn(
            "identity for each nonlinearity",
            lambda setting: measure(setting, linear=True),
            must_fail=True,
        ),
    ),
)
