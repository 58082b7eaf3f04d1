"""What stands in batch norm's place in a layer's weights, not after their product."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

Activation = Callable[[jax.Array], jax.Array]
_QUANTILES = 2000


class NoPlace(ValueError):
    """Something that cannot stand in batch norm's place in a claim; the message says why."""


@dataclass(frozen=True)
class InWeights:
    """A change of each layer's kernel, in the place of a norm after it."""

    change: Callable[[jax.Array, jax.Array, Activation], jax.Array]
    """(kernel `(inputs, units)`, the layer's inputs, activation) -> the kernel in its place."""
    at_start: bool = False
    """Whether the initial kernel alone is changed, and then trained as it is."""

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Refuses to be made as a norm that comes after a layer.

        Raises:
            NoPlace: always.
        """
        raise NoPlace(
            "It is made in the weights of a layer, and in this claim no layer of its own comes "
            "right before the norm."
        )


def standardized(w: jax.Array) -> jax.Array:
    """Mean 0 and mean square 1/inputs for each unit: Brock et al. 2021, equation 1, without gain.

    Args:
        w: `(inputs, units)`.
    """
    w = w - jnp.mean(w, axis=0, keepdims=True)
    return w / jnp.linalg.norm(w, axis=0, keepdims=True)


def gain_of(activation: Activation, dtype: Any = jnp.float32) -> jax.Array:
    """1/std of `activation` of a standard normal, by the normal's quantiles."""
    z = jax.scipy.special.ndtri((jnp.arange(_QUANTILES, dtype=dtype) + 0.5) / _QUANTILES)
    return 1 / jnp.std(activation(z))


def _scaled(kernel: jax.Array, h: jax.Array, activation: Activation) -> jax.Array:
    return gain_of(activation, kernel.dtype) * standardized(kernel)


def _of_unit_variance(kernel: jax.Array, h: jax.Array, activation: Activation) -> jax.Array:
    # A constant, as of an initial kernel that is then used: no gradient goes through it.
    return kernel * jax.lax.stop_gradient(jax.lax.rsqrt(jnp.mean(jnp.square(h @ kernel))))


WEIGHT_STANDARDISATION = InWeights(_scaled)
"""Scaled weight standardisation (Brock et al. 2021, arXiv:2101.08692), every time it is used."""
UNIT_VARIANCE = InWeights(_of_unit_variance, at_start=True)
"""Initial kernels whose products have mean square 1 over a batch and all units, layer by layer.

The scaling of Mishkin & Matas 2016 (LSUV, arXiv:1511.06422), of whatever kernels are drawn.
"""
