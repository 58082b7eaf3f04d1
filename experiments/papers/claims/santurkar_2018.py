"""Santurkar et al. 2018: what batch norm does to the loss around the weights.

The probes along the gradient serve two claims: what they found of it, and what is often made of
that. The formula of the backward pass is exact, and needs no training. `santurkar_2018_shift` has
the paper's section 2.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

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
from experiments.papers.tools.spread import combinations, spread, spread_each
from experiments.papers.tools.stand_ins import (
    BATCH_NORM,
    DETACHED,
    NORMS,
    as_function,
    beside_no_norm,
    stand_ins,
)
from experiments.papers.tools.training import (
    Images,
    State,
    Task,
    advance,
    begin,
    next_loss,
    relu_task,
    standardized,
)
from jbn import batch_moments
from jbn.diagnostics import along_gradient

CITATION = (
    "Santurkar, Tsipras, Ilyas & Madry 2018, How Does Batch Normalization Help Optimization?, "
    "NeurIPS, arXiv:1805.11604"
)
_REACH = np.array([0.1, 0.5, 1, 2, 3, 4], np.float32)
"""Steps along the gradient, in learning rates: one nearby, then the paper's, from 1/2 to 4."""
_NOTICEABLE = 0.1
"""Powers of ten: a quarter more. No norm at all in batch norm's place gives 0."""
_RATES = (0.1, 0.01)
_BETWEEN = 10  # steps between two probes
_HE = 2.0  # the squared length of a neuron's weights under He's initialisation


class Probes(NamedTuple):
    """Along the gradient, at each time; `local_beta` over the nearest step, the rest over all."""

    variation: jax.Array
    """Of the loss: largest less smallest."""
    change: jax.Array
    """Of the gradient: the largest distance from that at the start, over its length."""
    local_beta: jax.Array
    beta: jax.Array


def lengths(params: Any) -> Any:
    """Finds the length of each hidden neuron's weights, over that of He's initialisation.

    Of a shape to multiply the kernel; 1 for all other parameters.
    """

    def of(path: Any, leaf: jax.Array) -> jax.Array:
        if not (path[0].key.startswith("hidden_") and path[1].key == "kernel"):
            return jnp.ones(())
        return jnp.sqrt(jnp.sum(jnp.square(leaf), axis=1, keepdims=True) / _HE)

    return jax.tree_util.tree_map_with_path(of, params)


def probe(loss_fn: Callable[[Any], jax.Array], params: Any, learning_rate: jax.Array) -> Probes:
    """Looks along the gradient, in units of the lengths of the neurons' weights.

    Multiplied before a norm that undoes it, weights give the same function; in these units they
    give the same landscape too.
    """
    units = lengths(params)
    seen = along_gradient(
        lambda w: loss_fn(jax.tree.map(jnp.multiply, w, units)),
        jax.tree.map(jnp.divide, params, units),
        learning_rate * _REACH,
    )
    loss, distance = seen.loss[1:], seen.gradient_distance
    betas = distance / (learning_rate * _REACH * seen.gradient_norm)
    return Probes(
        jnp.max(loss) - jnp.min(loss),
        jnp.max(distance[1:]) / seen.gradient_norm,
        betas[0],
        jnp.max(betas[1:]),
    )


def probes(
    task: Task, steps: int, images: Images, seed: jax.Array, learning_rate: jax.Array
) -> Probes:
    """Every 10 steps of a run, with the batch of the step to come."""

    def look(state: State, _: None) -> tuple[State, Probes]:
        loss_fn = next_loss(task, images, state)
        seen = probe(lambda params: loss_fn(params)[0], state.params, learning_rate)
        return advance(task, images, state, _BETWEEN)[0], seen

    start = begin(task, images, seed, learning_rate)
    return jax.lax.scan(look, start, length=steps // _BETWEEN)[1]


def _rates(setting: Setting) -> np.ndarray:
    return np.array(_RATES[: setting.pick(len(_RATES), 1)], np.float32)


def _steps(setting: Setting) -> int:
    return setting.pick(100, 60)


def _seeds(setting: Setting) -> dict[int, np.ndarray]:
    """By depth: the deeper, the slower, and the more alike are the seeds."""
    full = {3: 6, 10: 4, 20: 3}
    depths = [3] if setting.quick else [*full]
    return {depth: setting.seeds(full[depth], quick=3) for depth in depths}


@once
def _probed(setting: Setting, norms: tuple[Any, ...]) -> list[dict[int, Probes]]:
    """For each norm by depth; arrays `(seeds, rates, times)`."""
    images, rates = standardized(setting.mnist), _rates(setting)
    found: list[dict[int, Probes]] = [{} for _ in norms]
    for depth, seeds in _seeds(setting).items():
        runs = [partial(probes, relu_task(depth, norm), _steps(setting)) for norm in norms]
        rows = combinations(seeds, rates)
        for i, seen in spread_each(dict(enumerate(runs)), *rows, given=(images,)).items():
            shape = len(seeds), len(rates), -1
            found[i][depth] = Probes(*(part.reshape(shape) for part in seen))
    return found


def _pairs(setting: Setting, norm: Any) -> dict[int, tuple[Probes, Probes]]:
    """By depth: without a norm, and with `norm`."""
    without, with_norm = beside_no_norm(_probed, setting, norm)
    return {depth: (without[depth], with_norm[depth]) for depth in without}


def _factor(without: np.ndarray, with_norm: np.ndarray) -> np.ndarray:
    """Powers of ten by which the median over time is larger without: `(seeds, rates)`."""
    return np.log10(np.median(without, axis=2)) - np.log10(np.median(with_norm, axis=2))


def measure_variation(setting: Setting, norm: Any = BATCH_NORM) -> Outcome:
    """Loss variation and relative change of the gradient, without over with."""
    checks, plots = [], []
    words = {"variation": "variation of the loss", "change": "relative change of the gradient"}
    for depth, (without, with_norm) in _pairs(setting, norm).items():
        if depth > 10:
            continue
        for quantity, said in words.items():
            factor = _factor(getattr(without, quantity), getattr(with_norm, quantity))
            for i, rate in enumerate(_rates(setting)):
                checks.append(
                    Check(
                        f"{depth} hidden layers, rate {rate:.2g}: {said}, powers of ten more "
                        "without",
                        factor[:, i],
                        at_least(np.log10(2).item()),
                        "published",
                    )
                )
        times = _BETWEEN * np.arange(without.variation.shape[2])
        lines = [
            Line(name, times, seen.variation[:, 0])
            for name, seen in (("no norm", without), ("batch norm", with_norm))
        ]
        title = f"{depth} hidden layers, rate {_rates(setting)[0]:.2g}"
        plots.append(Plot(title, "step", "variation of the loss along the gradient", lines, "y"))
    remark = (
        "Steps are in units of each neuron's weights, and so is the gradient: the same function "
        "with its kernels multiplied before batch norm gives the same numbers. The paper's own are "
        "in the units of the weights as they are, which the size of the initial kernels decides."
    )
    return Outcome(checks, plots, [remark])


def measure_smoothness(setting: Setting, norm: Any = BATCH_NORM) -> Outcome:
    """Effective beta-smoothness, without over with, near the weights and further off."""
    checks, local, depths = [], [], []
    near, *_, far = _REACH
    for depth, (without, with_norm) in _pairs(setting, norm).items():
        nearby = _factor(np.asarray(without.local_beta), np.asarray(with_norm.local_beta))
        further = _factor(np.asarray(without.beta), np.asarray(with_norm.beta))
        for reach, factor in (
            (f"a step of {near:.2g} rates", nearby),
            (f"steps to {far:.2g} rates", further),
        ):
            for i, rate in enumerate(_rates(setting)):
                checks.append(
                    Check(
                        f"{depth} hidden layers, rate {rate:.2g}, {reach}: beta, powers of ten "
                        "more without",
                        factor[:, i],
                        at_least(_NOTICEABLE),
                        "published",
                    )
                )
        local.append(nearby)
        depths.append(depth)
    fewest = min(map(len, local))
    plot = Plot(
        f"Beta for a step of {near:.2g} rates, without against with",
        "hidden layers",
        "powers of ten",
        [
            Line(f"rate {rate:.2g}", depths, np.stack([f[:fewest, i] for f in local], axis=1))
            for i, rate in enumerate(_rates(setting))
        ],
    )
    return Outcome(checks, [plot])


class Backward(NamedTuple):
    """Largest errors over 64 units, relative to the largest value of each."""

    gradient: jax.Array
    """Of dL/dy, element by element."""
    square: jax.Array
    """Of |dL/dy|² of a unit."""


def backward_errors(norm: Any, dtype: str, seed: jax.Array) -> Backward:
    """Compares the gradient through `norm` with batch norm's formula, in random numbers."""
    y, z_weights, affine, _ = jax.random.normal(jax.random.key(seed), (4, 32, 64), dtype)
    y, scale, bias = 3 * y + 1, affine[0], affine[1]
    normalize = as_function(norm)

    def after(z: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(z_weights * z) + jnp.tanh(z) ** 2)

    def normed(y: jax.Array) -> jax.Array:
        return scale[None] * normalize(y).astype(dtype) + bias[None]

    mean, var, _ = batch_moments(y)
    normalized = (y - mean[None]) / jnp.sqrt(var)[None]
    g, m = jax.grad(after)(normed(y)), y.shape[0]
    measured = jax.grad(lambda y: after(normed(y)))(y)
    along_ones, along_y = jnp.sum(g, axis=0), jnp.sum(g * normalized, axis=0)
    rest = g - along_ones[None] / m - normalized * along_y[None] / m
    expected = (scale / jnp.sqrt(var))[None] * rest
    square = (scale**2 / var) * (jnp.sum(g**2, axis=0) - along_ones**2 / m - along_y**2 / m)
    squares = jnp.sum(jnp.square(measured), axis=0)

    def error(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))

    return Backward(error(measured, expected), error(squares, square))


def measure_backward(setting: Setting, norm: Any = BATCH_NORM) -> Outcome:
    """The gradient through batch norm beside its formula, in double and single precision."""
    seeds = setting.seeds(full=20, quick=6)
    with jax.enable_x64(True):
        double = spread(partial(backward_errors, norm, "float64"), seeds)
    single = spread(partial(backward_errors, norm, "float32"), seeds)
    checks, lines = [], []
    for dtype, found, most in (("float64", double, 1e-12), ("float32", single, 1e-4)):
        checks += [
            Check(f"relative error of dL/dy, {dtype}", found.gradient, at_most(most), "theory"),
            Check(f"relative error of |dL/dy|², {dtype}", found.square, at_most(most), "theory"),
        ]
        lines.append(Line(dtype, np.arange(len(seeds)), found.gradient))
    remark = (
        "This is the backward pass of Ioffe & Szegedy, section 3, and a test of it. Theorem 4.1 "
        "of Santurkar et al. follows by an assumption, that the gradient after the norm is that of "
        "the network without: it is not tested here. The formula makes the gradient smaller only "
        "where gamma is at most sigma."
    )
    plot = Plot("Gradient and formula", "seed", "relative error of dL/dy", lines, log="y")
    return Outcome(checks, [plot], [remark])


def _landscape_setup(depths: int) -> Callable[[Setting], str]:
    """The set-up with so many of the depths."""

    def setup(setting: Setting) -> str:
        seeds = {depth: len(s) for depth, s in [*_seeds(setting).items()][:depths]}
        layers = ", ".join(f"{depth} ({count} seeds)" for depth, count in seeds.items())
        rates = " or ".join(f"{rate:.2g}" for rate in _rates(setting))
        near, first, *_, last = _REACH
        return (
            f"MNIST, standardised; {layers} hidden layers of 100 ReLU, He initialisation, SGD, "
            f"batch size 128, learning rate {rates}. Every {_BETWEEN} of {_steps(setting)} steps, "
            f"steps of {first:.2g} to {last:.2g} learning rates along the gradient on the batch to "
            f"come, and one of {near:.2g}; median over time. Step and gradient in units of each "
            "hidden neuron's weights, |w| = sqrt(2) as He's."
        )

    return setup


VARIATION = Claim(
    name="santurkar-landscape",
    sentence="Along the gradient the loss varies less with batch norm, and the gradient stays "
    "more like itself.",
    citation=f"{CITATION}, section 3.1 and figure 4",
    setup=_landscape_setup(2),
    formula="max_a L(w - a g) - min_a L(w - a g), and max_a |grad L(w - a g) - g| / |g|: log10 of "
    "the ratio without over with",
    measure=measure_variation,
    needs_mnist=True,
    registered="2026-11-22",
    changes=(
        "2026-11-28: the gradient's change was absolute, with steps of 0.01 to 0.4 in the units of "
        "the weights as they are; now it is relative to the gradient, with steps of the paper's "
        "0.5 to 4 learning rates in units of the weights' lengths, because weights before batch "
        "norm have no scale. The ranges stand. Detached statistics were to fail with it, and came "
        "out reproduced: the landscape is the forward pass's.",
    ),
    stand_ins=stand_ins(measure_variation, must_fail=("no norm",)),
)

SMOOTHNESS = Claim(
    name="santurkar-smoothness",
    sentence="Batch norm makes the loss smoother: its gradient changes less per distance moved.",
    citation=f"{CITATION}, section 3.1 and figure 4c",
    setup=_landscape_setup(3),
    formula="beta = max_a |grad L(w - a g) - g| / (a |g|): log10 of the ratio without over with",
    measure=measure_smoothness,
    group="contested",
    needs_mnist=True,
    registered="2026-11-22",
    changes=(
        "2026-11-28: at least 0 was the range; 0.1, because no norm at all has exactly 0. Steps "
        "and gradients are in units of the weights' lengths, as in santurkar-landscape.",
    ),
    stand_ins=stand_ins(measure_smoothness, must_fail=("no norm",)),
)

BACKWARD = Claim(
    name="santurkar-backward",
    sentence="Batch norm takes from a gradient its mean and its part along the normalised input, "
    "and scales the rest by gamma over sigma.",
    citation=f"{CITATION}, proof of theorem 4.1; Ioffe & Szegedy 2015, Batch Normalization, ICML, "
    "arXiv:1502.03167, section 3",
    setup=lambda setting: (
        "32 examples of 64 units with random gamma and beta, a nonlinear loss of "
        f"the outputs, no epsilon, {len(setting.seeds(full=20, quick=6))} seeds."
    ),
    formula="dL/dy = gamma/sigma (g - <1, g>/m - y^ <y^, g>/m), and |dL/dy|² = gamma²/sigma² (|g|² "
    "- <1, g>²/m - <y^, g>²/m), per unit: y the input, y^ it normalised, g = dL/dz of the output "
    "z, m examples",
    measure=measure_backward,
    registered="2026-11-22",
    changes=(
        "2026-11-28: santurkar-theorem was its name; it is the formula of the backward pass, "
        "and not the theorem. The gradient itself is compared too.",
    ),
    stand_ins=[
        *stand_ins(measure_backward, must_fail=NORMS),
        *stand_ins(measure_backward, DETACHED, must_fail=DETACHED),
    ],
)
