"""Than 2025: batch norm is said to lower a network's Lipschitz constant, layer by layer."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, at_most
from experiments.papers.tools.deep import NO_EPSILON
from experiments.papers.tools.digits import (
    Images,
    digits,
    draw,
    initial,
    loss,
    network,
)
from experiments.papers.tools.in_weights import InWeights
from experiments.papers.tools.mlp import in_training
from experiments.papers.tools.spread import spread
from experiments.papers.tools.stand_ins import as_function, stand_ins
from experiments.study.norms import is_variant
from jbn import Standard, batch_moments, normalize

_EXAMPLES = 256
_PROBES = 8
_DEPTH = 20
_WIDTH = 100
_FITTED = slice(4, None)  # the first layers are on the way to the fixed point
_TRAINED_DEPTH = 5
_LEARNING_RATE = 0.1
_BATCH_SIZE = 64
_LEAST = 0.95
"""What a layer of norm takes away at least: with none it is exactly nothing, a factor of 1."""

# Large batches (Yang et al. 2019, theorem 8) of |J|² in the mean over directions.
RELU_RATE = float(np.sqrt(np.pi / (np.pi - 1)))


def at_init(norm: Any, images: Images, seed: jax.Array) -> jax.Array:
    """dh_l/dx after each random layer h <- ReLU(norm(h W)): `(layers, probes, inputs, units)`.

    Batch norm as it infers: with the statistics of all `images`, as constants.
    """
    x = jnp.asarray(images.x)
    first, rest = jax.random.split(jax.random.key(seed))
    change = norm.change if isinstance(norm, InWeights) else None
    function = None if is_variant(norm) else as_function(None if change else norm)

    def layer(state: tuple[Any, Any, Any], key: jax.Array) -> tuple[Any, jax.Array]:
        h, probes, jacobian = state  # (examples, n), (probes, n), (probes, inputs, n)
        n = h.shape[1]
        kernel = jax.random.normal(key, (n, _WIDTH)) * np.sqrt(2 / n)
        kernel = change(kernel, h, jax.nn.relu) if change else kernel
        moments = batch_moments(h @ kernel)

        def forward(h: jax.Array) -> jax.Array:
            z = h @ kernel
            if function is None:
                z = normalize(z, moments.mean, moments.var, epsilon=NO_EPSILON)
            else:
                z = function(z)
            return jax.nn.relu(z)

        def tangents(probe: jax.Array, directions: jax.Array) -> jax.Array:
            return jax.vmap(lambda v: jax.jvp(lambda p: forward(p[None])[0], (probe,), (v,))[1])(
                directions
            )

        jacobian = jax.vmap(tangents)(probes, jacobian)
        state = forward(h), forward(probes), jacobian
        return state, jacobian

    inputs = x.shape[1]
    start = x, x[:_PROBES], jnp.tile(jnp.eye(inputs), (_PROBES, 1, 1))
    state, begun = layer(start, first)
    _, seen = jax.lax.scan(layer, state, jax.random.split(rest, _DEPTH - 1))
    return jnp.concatenate([begun[None], seen])


def trained(norm: Any, steps: int, images: Images, seed: jax.Array) -> jax.Array:
    """d scores/dx at inference, before training and after: `(2, probes, classes, inputs)`."""
    model = network((_WIDTH,) * _TRAINED_DEPTH, norm)
    weights_key, batches_key = jax.random.split(jax.random.key(seed))
    params = initial(model, weights_key)
    x = jnp.asarray(images.x)

    def derivative(params: Any) -> jax.Array:
        empty = {
            name: {"mean": jnp.zeros_like(p["scale"]), "var": jnp.ones_like(p["scale"])}
            for name, p in params.items()
            if name.startswith("norm_")
        }
        _, _, stats = in_training(model, params, empty, x, momentum=0.0)

        def scores(probe: jax.Array) -> Any:
            variables = {"params": params, "batch_stats": stats}
            found: Any = model.apply(variables, probe[None], use_running_average=True)
            return found[0][0]

        return jax.vmap(jax.jacrev(scores))(x[:_PROBES])

    def step(params: Any, t: jax.Array) -> tuple[Any, None]:
        batch = draw(images, jax.random.fold_in(batches_key, t), _BATCH_SIZE)
        gradient, _ = jax.grad(lambda p: loss(model, p, batch), has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - _LEARNING_RATE * g, params, gradient), None

    after, _ = jax.lax.scan(step, params, jnp.arange(steps))
    return jnp.stack([derivative(params), derivative(after)])


def lipschitz(jacobians: np.ndarray) -> np.ndarray:
    """Largest singular value, mean over probes: `(.., probes, a, b)` -> `(..)`."""
    return np.linalg.norm(jacobians, ord=2, axis=(-2, -1)).mean(axis=-1)


def factor(with_norm: np.ndarray, without: np.ndarray) -> np.ndarray:
    """Per layer, by which the norm multiplies: slope of the log of the ratio, `(seeds, depth)`."""
    logs = np.log(with_norm / without)[:, _FITTED]
    return np.exp(np.polyfit(np.arange(logs.shape[1]), logs.T, 1)[0])


def _steps(setting: Setting) -> int:
    return setting.pick(full=1000, quick=300)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=6, quick=4)


def measure_with(setting: Setting, norm: Any) -> Outcome:
    """Lipschitz constants with and without the norm, at the start and after training."""
    seeds = _seeds(setting)
    some = digits(_EXAMPLES)
    without, with_norm = (
        lipschitz(spread(partial(at_init, each), seeds, given=[some])) for each in (None, norm)
    )
    before, after = (
        lipschitz(spread(partial(trained, each, _steps(setting)), seeds, given=[digits()]))
        for each in (None, norm)
    )
    per_layer = factor(with_norm, without)
    checks = [
        Check(
            "at the start: factor per layer of norm",
            per_layer,
            at_most(_LEAST),
            "published",
        ),
        Check(
            f"trained, {_TRAINED_DEPTH} layers: Lipschitz constant over that without a norm",
            after[:, 1] / before[:, 1],
            at_most(_LEAST**_TRAINED_DEPTH),
            "published",
        ),
    ]
    layers = np.arange(1, _DEPTH + 1)
    theory = with_norm[:, 4:5].mean() * RELU_RATE ** (layers - 5.0)
    plot = Plot(
        "At the start",
        "layer",
        "spectral norm of dh/dx",
        [
            Line("batch norm", layers, with_norm),
            Line("batch norm, rate of theory", layers, theory, expected=True),
            Line("no norm", layers, without),
        ],
        log="y",
    )
    remarks = [
        f"At the start theory has a factor of {RELU_RATE:.3f} per layer more with batch norm "
        "(the root of that of yang-gradients), the opposite of the claim.",
        "The paper proves a reduction where the deviations that batch norm divides by are large, "
        "and does not say that they are.",
    ]
    return Outcome(checks, [plot], remarks)


def _describe(setting: Setting) -> str:
    return (
        f"Digits; random ReLU networks of {_DEPTH} layers of {_WIDTH}, He's initialisation, batch "
        f"norm at inference with statistics of {_EXAMPLES} images; spectral norm of the derivative "
        f"of the last hidden layer, mean over {_PROBES} images. Trained: {_TRAINED_DEPTH} layers, "
        f"{_steps(setting)} steps of SGD at rate {_LEARNING_RATE:g}, batch size {_BATCH_SIZE}, "
        f"spectral norm of the derivative of the scores. {len(_seeds(setting))} seeds."
    )


LIPSCHITZ = Claim(
    name="than-lipschitz",
    sentence="Batch norm lowers a network's Lipschitz constant, exponentially in the number of its "
    "layers.",
    citation="Than 2025, The Hidden Power of Normalization: Exponential Capacity Control in Deep "
    "Neural Networks, arXiv:2511.00958, abstract",
    setup=_describe,
    formula="largest singular value of dh_L/dx, with batch norm over without: per layer below 1",
    measure=lambda setting: measure_with(setting, Standard()),
    group="contested",
    registered="2026-11-28",
    stand_ins=stand_ins(measure_with, must_fail=("no norm",)),
)
