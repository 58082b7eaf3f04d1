"""Santurkar et al. 2018: what batch norm does to the loss around the weights.

The probes along the gradient serve two claims: what they found of it, and what is often made of
that. Theorem 4.1 is exact, and needs no training. `santurkar_2018_shift` has the paper's section 2.
"""

from functools import partial

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
from experiments.papers.tools.deep import NO_EPSILON
from experiments.papers.tools.spread import combinations, spread, spread_each
from experiments.papers.tools.training import (
    NORMS,
    Images,
    State,
    Task,
    advance,
    begin,
    next_loss,
    relu_task,
    standardized,
)
from jbn import batch_moments, batch_norm, init
from jbn.diagnostics import AlongGradient, along_gradient

CITATION = (
    "Santurkar, Tsipras, Ilyas & Madry 2018, How Does Batch Normalization Help Optimization?, "
    "NeurIPS, arXiv:1805.11604"
)
_STEP_SIZES = np.array([0.01, 0.05, 0.1, 0.2, 0.3, 0.4], np.float32)
_RATES = np.array([0.1, 0.01], np.float32)
_BETWEEN = 10  # steps between two probes


def probes(
    task: Task, steps: int, images: Images, seed: jax.Array, learning_rate: jax.Array
) -> AlongGradient:
    """Every 10 steps of a run, with the batch of the step to come."""

    def look(state: State, _: None) -> tuple[State, AlongGradient]:
        loss_fn = next_loss(task, images, state)
        seen = along_gradient(
            lambda params: loss_fn(params)[0], state.params, jnp.array(_STEP_SIZES)
        )
        return advance(task, images, state, _BETWEEN)[0], seen

    start = begin(task, images, seed, learning_rate)
    return jax.lax.scan(look, start, length=steps // _BETWEEN)[1]


def _rates(setting: Setting) -> np.ndarray:
    return _RATES[:1] if setting.quick else _RATES


@once
def _probed(setting: Setting) -> dict[int, dict[str, AlongGradient]]:
    """By depth and norm; arrays `(seeds, rates, times, ..)`."""
    # The deeper, the slower, and the more alike are the seeds.
    seeds_of = {depth: setting.seeds(full, quick=3) for depth, full in ((3, 8), (10, 5), (20, 4))}
    depths = (3, 10) if setting.quick else (3, 10, 20)
    images = standardized(setting.mnist)

    def of(depth: int) -> dict[str, AlongGradient]:
        seeds, rates, steps = seeds_of[depth], _rates(setting), setting.pick(250, 60)
        runs = {name: partial(probes, relu_task(depth, n), steps) for name, n in NORMS.items()}
        found = spread_each(runs, *combinations(seeds, rates), given=(images,))
        return jax.tree.map(lambda x: x.reshape(len(seeds), len(rates), *x.shape[1:]), found)

    return {depth: of(depth) for depth in depths}


def local_beta(seen: AlongGradient) -> np.ndarray:
    """Effective beta-smoothness over the smallest step alone."""
    return np.asarray(seen.gradient_distance[..., 0] / (_STEP_SIZES[0] * seen.gradient_norm))


def _factor(without: np.ndarray, with_norm: np.ndarray) -> np.ndarray:
    """Powers of ten by which the median over time is larger without: `(seeds, rates)`."""
    return np.log10(np.median(without, axis=2)) - np.log10(np.median(with_norm, axis=2))


def measure_variation(setting: Setting) -> Outcome:
    """Loss variation and gradient predictiveness, without over with."""
    checks, plots = [], []
    for depth, (without, with_norm) in _pairs(setting).items():
        if depth > 10:
            continue
        for quantity in ("loss_variation", "gradient_predictiveness"):
            factor = _factor(getattr(without, quantity), getattr(with_norm, quantity))
            words = {
                "loss_variation": "variation of the loss",
                "gradient_predictiveness": "change of the gradient",
            }[quantity]
            for i, rate in enumerate(_rates(setting)):
                checks.append(
                    Check(
                        f"{depth} hidden layers, rate {rate:.2g}: {words}, powers of ten more "
                        "without",
                        factor[:, i],
                        at_least(np.log10(2).item()),
                        "regression",
                    )
                )
        plots.append(_plot(f"{depth} hidden layers, rate 0.1", without, with_norm))
    return Outcome(checks, plots)


def _pairs(setting: Setting) -> dict[int, tuple[AlongGradient, AlongGradient]]:
    return {
        depth: (by_norm["without"], by_norm["with batch norm"])
        for depth, by_norm in _probed(setting).items()
    }


def _plot(title: str, without: AlongGradient, with_norm: AlongGradient) -> Plot:
    times = _BETWEEN * np.arange(without.loss_variation.shape[2])
    lines = [
        Line(name, times, seen.loss_variation[:, 0])
        for name, seen in zip(NORMS, (without, with_norm))
    ]
    return Plot(title, "step", "variation of the loss along the gradient", lines, log="y")


def measure_smoothness(setting: Setting) -> Outcome:
    """Effective beta-smoothness, without over with, near the weights and further off."""
    checks, local, depths = [], [], []
    for depth, (without, with_norm) in _pairs(setting).items():
        near_by = _factor(local_beta(without), local_beta(with_norm))
        further = _factor(
            np.asarray(without.beta_smoothness), np.asarray(with_norm.beta_smoothness)
        )
        for steps, factor in (("step 0.01", near_by), ("steps to 0.4", further)):
            for i, rate in enumerate(_rates(setting)):
                checks.append(
                    Check(
                        f"{depth} hidden layers, rate {rate:.2g}, {steps}: beta, powers of ten "
                        "more without",
                        factor[:, i],
                        at_least(0.0),
                        "regression",
                    )
                )
        local.append(near_by)
        depths.append(depth)
    fewest = min(map(len, local))
    plot = Plot(
        "Beta for a step of 0.01, without against with",
        "hidden layers",
        "powers of ten",
        [
            Line(f"rate {rate:.2g}", depths, np.stack([f[:fewest, i] for f in local], axis=1))
            for i, rate in enumerate(_rates(setting))
        ],
    )
    remark = "Depth, learning rate and the range of steps decide, not batch norm alone."
    return Outcome(checks, [plot], [remark])


def identity_error(dtype: str, seed: jax.Array) -> jax.Array:
    """The largest relative difference between the two sides of theorem 4.1, over 64 units."""
    y, z_weights, scale, bias = jax.random.normal(jax.random.key(seed), (4, 32, 64), dtype)
    y = 3 * y + 1
    affine = init(64, jnp.dtype(dtype))[0]._replace(scale=scale[0], bias=bias[0])
    stats = init(64, jnp.dtype(dtype))[1]

    def after(z: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(z_weights * z) + jnp.tanh(z) ** 2)

    def before(y: jax.Array) -> jax.Array:
        return after(batch_norm(y, affine, stats, epsilon=NO_EPSILON)[0])

    z, _ = batch_norm(y, affine, stats, epsilon=NO_EPSILON)
    mean, var, _ = batch_moments(y)
    normalized = (y - mean[None]) / jnp.sqrt(var)[None]
    gradient, m = jax.grad(after)(z), y.shape[0]
    left = jnp.sum(jnp.square(jax.grad(before)(y)), axis=0)
    right = (affine.scale**2 / var) * (
        jnp.sum(gradient**2, axis=0)
        - jnp.sum(gradient, axis=0) ** 2 / m
        - jnp.sum(gradient * normalized, axis=0) ** 2 / m
    )
    return jnp.max(jnp.abs(left / right - 1))


def measure_identity(setting: Setting) -> Outcome:
    """The two sides of theorem 4.1, in double and single precision."""
    seeds = setting.seeds(full=20, quick=6)
    with jax.enable_x64(True):
        double = spread(partial(identity_error, "float64"), seeds)
    single = spread(partial(identity_error, "float32"), seeds)
    quantity = "largest relative difference of the sides"
    checks = [
        Check(f"{quantity}, float64", double, at_most(1e-12), "theory"),
        Check(f"{quantity}, float32", single, at_most(1e-4), "theory"),
    ]
    lines = [
        Line("float64", np.arange(len(seeds)), double),
        Line("float32", np.arange(len(seeds)), single),
    ]
    remark = (
        "The theorem is an inequality between two networks with the same gradient after the norm; "
        "within one network it is this equality. It makes the gradient smaller only where gamma is "
        "at most sigma."
    )
    plot = Plot("Sides of theorem 4.1", "seed", "relative difference", lines, log="y")
    return Outcome(checks, [plot], [remark])


_SETUP = (
    "MNIST, standardised; 3 or 10 hidden layers of 100 ReLU, He initialisation, SGD, batch size "
    "128, learning rate 0.01 or 0.1, 8 or 5 seeds. Every 10 of 250 steps, steps of 0.01 to 0.4 "
    "times the gradient on the batch to come; median over time."
)

VARIATION = Claim(
    name="santurkar-landscape",
    sentence="Along the gradient the loss varies less with batch norm, and the gradient stays "
    "more like itself.",
    citation=f"{CITATION}, section 3.1",
    setup=_SETUP,
    formula="max_a L(w - a g) - min_a L(w - a g), and max_a |grad L(w - a g) - g|: log10 of the "
    "ratio without over with",
    measure=measure_variation,
    needs_mnist=True,
)

SMOOTHNESS = Claim(
    name="santurkar-smoothness",
    sentence="Batch norm makes the loss smoother: its gradient changes less per distance moved.",
    citation=f"{CITATION}, section 3.1",
    setup=f"{_SETUP} Also 20 hidden layers, 4 seeds.",
    formula="beta = max_a |grad L(w - a g) - g| / (a |g|): log10 of the ratio without over with",
    measure=measure_smoothness,
    group="contested",
    needs_mnist=True,
)

IDENTITY = Claim(
    name="santurkar-theorem",
    sentence="Batch norm takes from a gradient its mean and its part along the normalised input, "
    "and scales the rest by gamma over sigma.",
    citation=f"{CITATION}, theorem 4.1",
    setup="32 examples of 64 units with random gamma and beta, a nonlinear loss of the outputs, no "
    "epsilon, 20 seeds.",
    formula="|dL/dy|² = gamma²/sigma² (|dL/dz|² - <1, dL/dz>²/m - <dL/dz, y^>²/m), per unit: y the "
    "input, y^ it normalised, z the output, m examples",
    measure=measure_identity,
)
