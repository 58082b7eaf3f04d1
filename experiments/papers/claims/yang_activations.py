"""Yang et al. 2019 beyond ReLU: every nonlinearity makes gradients explode, some of them slowly."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, near
from experiments.papers.claims.yang_2019 import CITATION, FITTED, deep_pass
from experiments.papers.tools.deep import factor_per_layer
from experiments.papers.tools.spread import spread_each

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "GELU": partial(jax.nn.gelu, approximate=False),
    "ELU": jax.nn.elu,
    "leaky ReLU 0.2": partial(jax.nn.leaky_relu, negative_slope=0.2),
    "sine": jnp.sin,
    "sigmoid": jax.nn.sigmoid,
}


def limiting_rate(activation: Callable[[jax.Array], jax.Array]) -> float:
    """E[phi'(z)²]/Var[phi(z)], z standard normal: at least 1, and 1 if phi is linear."""
    z = jnp.linspace(-8, 8, 16_001)  # its midpoint is zero, where some have a kink
    density = np.exp(-np.square(np.asarray(z)) / 2)
    weights = density / density.sum()
    phi = np.asarray(jax.vmap(activation)(z), np.float64)
    slope = np.asarray(jax.vmap(jax.grad(activation))(z), np.float64)
    mean = weights @ phi
    return float((weights @ np.square(slope)) / (weights @ np.square(phi - mean)))


def measure(setting: Setting) -> Outcome:
    """The factor per layer of each, beside that of a large batch."""
    seeds = setting.seeds(full=4, quick=4)
    width, batch_size = setting.pick(full=512, quick=256), setting.pick(full=128, quick=64)
    names = list(_ACTIVATIONS)[: setting.pick(full=len(_ACTIVATIONS), quick=2)]
    # Theory is for large batches: for ReLU, one of 128 is 1 % above the limit.
    tolerance = 0.04 if setting.quick else 0.03
    checks, factors, limits = [], [], []
    runs = {name: partial(deep_pass, _ACTIVATIONS[name], batch_size, width) for name in names}
    for name, seen in spread_each(runs, seeds).items():
        factors.append(factor_per_layer(seen.gradient, FITTED))
        limits.append(limiting_rate(_ACTIVATIONS[name]))
        allowed = near(limits[-1], relative=tolerance)
        checks.append(Check(f"{name}: factor per layer", factors[-1], allowed, "theory"))
    places = np.arange(len(names))
    lines = [
        Line("measured", places, np.stack(factors, axis=1)),
        Line("theory", places, np.array(limits), expected=True),
    ]
    plot = Plot(f"Batch size {batch_size}", "", "factor per layer", lines, categories=names)
    remarks = [
        "The formula is this project's reduction of the paper's theorem 9 to large batches, where "
        "the activations have forgotten the input. SiLU and softplus have not after 30 layers, and "
        "grow faster."
    ]
    return Outcome(checks, [plot], remarks)


ACTIVATIONS = Claim(
    name="yang-activations",
    sentence="Batch norm makes gradients explode with every nonlinearity, slowly with nearly "
    "linear ones.",
    citation=f"{CITATION}, theorem 9",
    setup="Width 512, batch size 128, 30 random layers, the rest as in yang-gradients; 4 seeds.",
    formula="factor per layer on |dL/dz|² = E[phi'(z)²]/Var[phi(z)], z standard normal",
    measure=measure,
    group="further",
)
