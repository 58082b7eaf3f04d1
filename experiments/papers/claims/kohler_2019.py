"""Kohler et al. 2019: with length and direction of a weight apart, least squares converges fast.

For a linear unit the loss with batch norm depends on the direction alone: it is a generalised
Rayleigh quotient, and gradient descent on it converges geometrically although it is not convex.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, at_most
from experiments.papers.tools.spread import combinations, spread

_DIMENSION = 20
_STEPS = 60
_CONDITIONS = (5.0, 50.0)
# Closer than this, rounding decides.
_CONVERGED = 1e-9


def suboptimality(condition: jax.Array, seed: jax.Array) -> jax.Array:
    """rho(w) - min rho after each step, for rho(w) = -(u.w)²/(w' S w)."""
    rotation_key, target_key, start_key = jax.random.split(jax.random.key(seed), 3)
    eigenvalues = jnp.linspace(1.0, condition, _DIMENSION)
    rotation = jax.random.orthogonal(rotation_key, _DIMENSION, dtype=eigenvalues.dtype)
    covariance = (rotation * eigenvalues[None]) @ rotation.T
    u = jax.random.normal(target_key, (_DIMENSION,), eigenvalues.dtype)
    w = jax.random.normal(start_key, (_DIMENSION,), eigenvalues.dtype)
    best = -u @ jnp.linalg.solve(covariance, u)

    def rho(w: jax.Array) -> jax.Array:
        return -jnp.square(u @ w) / (w @ covariance @ w)

    def step(w: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        value, gradient = jax.value_and_grad(rho)(w)
        rate = (w @ covariance @ w) / (2 * condition * jnp.abs(value))
        w = w - rate * gradient
        return w / jnp.linalg.norm(w), value - best

    return jax.lax.scan(step, w, length=_STEPS)[1]


def measure(setting: Setting) -> Outcome:
    """The largest factor of any step, beside the bound."""
    seeds = setting.seeds(full=20, quick=10)
    with jax.enable_x64(True):
        seen = spread(suboptimality, *combinations(_CONDITIONS, seeds))
    checks, lines = [], []
    steps = np.arange(_STEPS)
    for condition, values in zip(_CONDITIONS, seen.reshape(len(_CONDITIONS), len(seeds), -1)):
        bound = (1 - 1 / condition) ** 2
        usable = values[:, 1:] > _CONVERGED * values[:, :1]
        factors = np.where(usable, values[:, 1:], 0) / np.where(usable, values[:, :-1], 1)
        quantity = f"condition number {condition:g}: largest factor of a step"
        checks.append(Check(quantity, factors.max(axis=1), at_most(bound), "theory"))
        lines.append(Line(f"condition number {condition:g}", steps, values / values[:, :1]))
        law = bound**steps
        lines.append(Line(f"condition number {condition:g}, bound", steps, law, expected=True))
    plot = Plot("Rayleigh quotient", "step", "above the minimum, against step 0", lines, log="y")
    return Outcome(checks, [plot])


RAYLEIGH = Claim(
    name="kohler-rayleigh",
    sentence="Least squares with batch norm, although not convex, converges geometrically under "
    "gradient descent.",
    citation="Kohler, Daneshmand, Lucchi, Hofmann, Zhou & Neymeyr 2019, Exponential Convergence "
    "Rates for Batch Normalization, AISTATS, arXiv:1805.10694",
    setup="20 dimensions, covariance S with eigenvalues from mu = 1 evenly to L = 5 or 50, random "
    "u, 60 steps of size (w' S w)/(2 L |rho(w)|), float64; 20 seeds.",
    formula="rho(w) = -(u.w)²/(w' S w); rho(w_t) - min rho falls by (1 - mu/L)² per step or faster",
    measure=measure,
    group="further",
)
