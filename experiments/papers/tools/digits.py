"""A network on the digits and its loss: what claims about weights in training have in common."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.tools.deep import NO_EPSILON
from experiments.papers.tools.mlp import MLP, cross_entropy, in_training
from experiments.study.data import load
from experiments.study.norms import is_variant

NUM_PIXELS = 64
_BEGINNING = 256


class Images(NamedTuple):
    x: np.ndarray | jax.Array
    """`(N, 64)`, pixels in [0, 1]."""
    labels: np.ndarray | jax.Array
    """`(N,)`."""


def digits(count: int | None = None) -> Images:
    """The training images of the digits, or the first `count` of them."""
    data = load("digits")
    x = data.train_images[:count].astype(np.float32) / np.float32(data.brightest)
    return Images(x, data.train_labels[:count])


def network(widths: Sequence[int], norm: Any, epsilon: Any = NO_EPSILON) -> MLP:
    """ReLU layers with He's initialisation; `epsilon`, of any norm that has one, may be traced."""
    he = jax.nn.initializers.he_normal()
    return MLP(tuple(widths), jax.nn.relu, he, norm, epsilon=epsilon)


def initial(model: MLP, key: jax.Array) -> Any:
    """The parameters of `model`, batch norm with scale 1 and bias 0."""
    # The images are for initial weights that depend on them.
    x = jnp.asarray(digits(_BEGINNING).x)
    return model.init(key, x, use_running_average=False)["params"]


def loss(model: MLP, params: Any, images: Images) -> tuple[jax.Array, Any]:
    """Mean cross-entropy with the batch's own statistics, and these statistics.

    Those are `{}` for a norm that has none of a batch.
    """
    # Of the type of the parameters; made by the model they would be float32.
    empty = {
        name: {"mean": jnp.zeros_like(affine["scale"]), "var": jnp.ones_like(affine["scale"])}
        for name, affine in params.items()
        if name.startswith("norm_") and is_variant(model.norm)
    }
    scores, _, seen = in_training(model, params, empty, jnp.asarray(images.x), momentum=0.0)
    return cross_entropy(scores, images.labels), seen


def draw(images: Images, key: jax.Array, size: int) -> Images:
    """A batch of `size` images, drawn with replacement."""
    chosen = jax.random.randint(key, (size,), 0, images.x.shape[0])
    return Images(jnp.asarray(images.x)[chosen], jnp.asarray(images.labels)[chosen])


def hidden_kernels(params: Any) -> list[jax.Array]:
    """Of the layers before batch norm, from the input up, as `(inputs, units)`."""
    return [params[name]["kernel"].mT for name in sorted(params) if name.startswith("hidden_")]


def replace_hidden(params: Any, kernels: Sequence[jax.Array]) -> Any:
    """`params` with other hidden kernels, as `hidden_kernels` gives them."""
    names = [name for name in sorted(params) if name.startswith("hidden_")]
    return params | {n: params[n] | {"kernel": k.mT} for n, k in zip(names, kernels, strict=True)}
