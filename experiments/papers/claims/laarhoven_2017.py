"""van Laarhoven 2017: the scale of weights before batch norm does not matter, and only grows.

What follows for gradients is exact, before and during training, so it is checked to rounding.
"""

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
from experiments.papers.tools.digits import (
    NO_EPSILON,
    NUM_PIXELS,
    Images,
    digits,
    draw,
    hidden_kernels,
    initial,
    loss,
    network,
    replace_hidden,
)
from experiments.papers.tools.mlp import NUM_CLASSES
from experiments.papers.tools.spread import combinations, spread
from experiments.papers.tools.stand_ins import DETACHED, RIVALS, stand_ins
from jbn import Standard
from jbn.diagnostics import weight_gradient_cosine

_WIDTHS = (100, 100)
_BATCH_SIZE = 64
_FACTOR = 7.0
# Between the first two, <w, dL/dw> is a sum that cancels to its last digits.
_EPSILONS = np.array([NO_EPSILON, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1])
_LEARNING_RATE = 0.1


class _Gradient(NamedTuple):
    """Of one random network, on one batch."""

    cosine: jax.Array
    """Largest |cos(w, dL/dw)| of a hidden neuron."""
    formula_error: jax.Array
    """Of <w, dL/dw>, largest over neurons, relative to the largest value."""
    scale_error: jax.Array
    """Of c dL/dw at weights c w, relative to dL/dw at w."""


class _Training(NamedTuple):
    """Of all hidden weights, at each step of gradient descent."""

    square: jax.Array
    """|w|² after the step."""
    predicted: jax.Array
    """|w|², had all gradients been orthogonal to the weights."""
    cosine: jax.Array
    """|cos(w, dL/dw)| before the step: mean over neurons and largest."""


def inner_product(params: Any, gradient: Any, batch_stats: Any, epsilon: Any) -> jax.Array:
    """<w, dL/dw> of each neuron before batch norm: `epsilon / (var + epsilon) gamma dL/dgamma`.

    Zero where there are no statistics of a batch.
    """
    if not batch_stats:
        return jnp.float32(0)
    products = [
        epsilon / (seen["var"] + epsilon) * params[name]["scale"] * gradient[name]["scale"]
        for name, seen in sorted(batch_stats.items())
    ]
    return jnp.concatenate(products)


def gradient_pass(norm: Any, images: Images, seed: jax.Array, epsilon: jax.Array) -> _Gradient:
    """The gradient at random weights, and at these times 7, in the precision of `images`."""
    model = network(_WIDTHS, norm, epsilon)
    weights_key, batch_key, scales_key = jax.random.split(jax.random.key(seed), 3)
    dtype = images.x.dtype
    params = jax.tree.map(lambda p: p.astype(dtype), initial(model, weights_key))
    # Away from 1, where a wrong formula may be right.
    scales = jax.random.uniform(scales_key, (len(_WIDTHS), _WIDTHS[0]), dtype, 0.5, 1.5)
    for i, scale in enumerate(scales, start=1):
        if f"norm_{i}" in params:
            params[f"norm_{i}"] = params[f"norm_{i}"] | {"scale": scale}
    batch = draw(images, batch_key, _BATCH_SIZE)

    def at(factor: jax.Array) -> tuple[Any, Any, Any]:
        moved = replace_hidden(params, [factor * kernel for kernel in hidden_kernels(params)])
        return moved, *jax.grad(lambda p: loss(model, p, batch), has_aux=True)(moved)

    # The weights too: XLA may draw them anew for a use outside of the loop, and round otherwise.
    weights, gradients, batch_stats = jax.lax.map(at, jnp.array([1, _FACTOR], dtype))
    weights, gradient, batch_stats = jax.tree.map(
        lambda both: both[0], (weights, gradients, batch_stats)
    )
    expected = inner_product(weights, gradient, batch_stats, epsilon)
    w, g = hidden_kernels(weights), hidden_kernels(gradient)
    products = jnp.concatenate([jnp.sum(a * b, axis=0) for a, b in zip(w, g)])
    flat = jnp.concatenate([k.reshape(2, -1) for k in hidden_kernels(gradients)], axis=1)
    error = jnp.linalg.norm(_FACTOR * flat[1] - flat[0]) / jnp.linalg.norm(flat[0])
    return _Gradient(
        jnp.max(_cosines(w, g)),
        jnp.max(jnp.abs(products - expected)) / jnp.max(jnp.abs(expected)),
        error,
    )


def train(norm: Any, steps: int, images: Images, seed: jax.Array) -> _Training:
    """Gradient descent, and the squared norm that orthogonal gradients would have led to."""
    model = network(_WIDTHS, norm)
    weights_key, batches_key = jax.random.split(jax.random.key(seed))
    params = initial(model, weights_key)

    def step(state: tuple[Any, jax.Array], t: jax.Array) -> tuple[Any, _Training]:
        params, predicted = state
        batch = draw(images, jax.random.fold_in(batches_key, t), _BATCH_SIZE)
        gradient, _ = jax.grad(lambda p: loss(model, p, batch), has_aux=True)(params)
        cosines = _cosines(hidden_kernels(params), hidden_kernels(gradient))
        # Of neurons that are not dead: those have no gradient.
        seen = jnp.stack([jnp.nanmean(cosines), jnp.nanmax(cosines)])
        params = jax.tree.map(lambda p, g: p - _LEARNING_RATE * g, params, gradient)
        predicted = predicted + _LEARNING_RATE**2 * _square(gradient)
        return (params, predicted), _Training(_square(params), predicted, seen)

    _, training = jax.lax.scan(step, (params, _square(params)), jnp.arange(steps))
    return training


def _cosines(w: list[jax.Array], g: list[jax.Array]) -> jax.Array:
    return jnp.abs(jnp.concatenate(weight_gradient_cosine(w, g, per_neuron=True)))


def _square(params: Any) -> jax.Array:
    return jnp.sum(jnp.stack([jnp.sum(jnp.square(w)) for w in hidden_kernels(params)]))


@once
def _gradients(setting: Setting, norm: Any) -> _Gradient:
    """In float64, at each epsilon: results `(seeds, epsilons)`."""
    images, seeds = digits(), _seeds(setting)
    with jax.enable_x64(True):
        precise = Images(images.x.astype(np.float64), images.labels)
        run = partial(gradient_pass, norm)
        gradients = spread(run, *combinations(seeds, _EPSILONS), given=[precise])
    return jax.tree.map(lambda g: g.reshape(len(seeds), -1), gradients)


@once
def _trained(setting: Setting, norm: Any) -> _Training:
    """In float32, without epsilon: results `(seeds, steps, ..)`."""
    return spread(partial(train, norm, _steps(setting)), _seeds(setting), given=[digits()])


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=6, quick=3)


def _steps(setting: Setting) -> int:
    return setting.pick(full=1000, quick=200)


def measure(setting: Setting, norm: Any = Standard()) -> Outcome:
    """Training in float32 without epsilon, and gradients in float64 with it."""
    trained = {"no norm": _trained(setting, None), "batch norm": _trained(setting, norm)}
    without, with_norm = trained.values()
    gradients = _gradients(setting, norm)

    def error(training: _Training) -> np.ndarray:
        return np.abs(training.predicted / training.square - 1)[:, -1]

    after = f"relative error of the predicted |w|² after {_steps(setting)} steps"
    checks = [
        Check(
            "largest |cos(w, dL/dw)| of any neuron at any step, float32",
            with_norm.cosine[..., 1].max(axis=1),
            at_most(1e-5),
            "theory",
        ),
        Check(after, error(with_norm), at_most(1e-5), "theory"),
        Check(
            f"relative error of {_FACTOR:g} dL/dw at weights {_FACTOR:g} w, float64",
            gradients.scale_error[:, 0],
            at_most(1e-9),
            "theory",
        ),
        Check(
            "epsilon 1e-5 to 0.1: relative error of <w, dL/dw>, float64",
            gradients.formula_error[:, 1:].max(axis=1),
            at_most(1e-9),
            "theory",
        ),
        Check(
            "no norm: |cos(w, dL/dw)|, mean over neurons and steps",
            without.cosine[..., 0].mean(axis=1),
            at_least(0.03),
            "regression",
            control=True,
        ),
        Check(f"no norm: {after}", error(without), at_least(0.03), "regression", control=True),
    ]
    t = np.arange(1, _steps(setting) + 1)
    lines = []
    for label, training in trained.items():
        lines.append(Line(label, t, training.square))
        theory = training.predicted.mean(axis=0)
        lines.append(Line(f"{label}, if orthogonal", t, theory, expected=True))
    largest = Line("batch norm", _EPSILONS[1:], gradients.cosine[:, 1:])
    plots = [
        Plot("Weights before batch norm grow with every step", "step", "|w|²", lines),
        Plot("Orthogonal up to epsilon", "epsilon", "largest |cos(w, dL/dw)|", [largest], log="xy"),
    ]
    return Outcome(checks, plots)


def _setup(setting: Setting) -> str:
    layers = "-".join(map(str, (NUM_PIXELS, *_WIDTHS, NUM_CLASSES)))
    return (
        f"Digits, {layers} ReLU, {_steps(setting)} steps of SGD, batch size {_BATCH_SIZE}, "
        f"learning rate {_LEARNING_RATE}, no weight decay, no epsilon unless said; "
        f"{len(_seeds(setting))} seeds."
    )


SCALE = Claim(
    name="laarhoven-scale",
    sentence="Weights before batch norm have no scale: their gradient is orthogonal to them, "
    "shrinks as they grow, and lets them only grow.",
    citation="van Laarhoven 2017, L2 Regularization versus Batch and Weight Normalization, "
    "arXiv:1706.05350, section 2; Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.3; Arora, Li & "
    "Lyu 2019, Theoretical Analysis of Auto Rate-Tuning by Batch Normalization, ICLR, "
    "arXiv:1812.03981, Lemma 2.4",
    setup=_setup,
    formula="<w, dL/dw> = 0, with epsilon gamma dL/dgamma epsilon/(var + epsilon); "
    "dL/dw at c w is 1/c of that at w; |w(t+1)|² = |w(t)|² + eta² |dL/dw|²",
    measure=measure,
    registered="2026-11-22",
    stand_ins=stand_ins(
        measure, {**RIVALS, **DETACHED}, must_fail=("no norm", "detached statistics")
    ),
)
