"""Layouts of inputs: feature axes anywhere, moved to the last axis and back."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from jbn._numerics.sharding import merge_last, reshape_like
from jbn._numerics.values import as_int


def feature_axes(ndim: int, axis: int | Sequence[int]) -> tuple[int, ...]:
    """Returns `axis` as sorted positive numbers."""
    positive = []
    for given in axis if isinstance(axis, Sequence) else (axis,):
        a = as_int(given)
        if a is None:
            raise TypeError(f"axis must be an int or a tuple of ints, got {axis!r}.")
        if not -ndim <= a < ndim:
            raise ValueError(f"axis={axis!r} is out of range for an input of {ndim} axes.")
        positive.append(a % ndim)
    positive.sort()
    if not positive or len(set(positive)) < len(positive):
        raise ValueError(f"axis must name at least one feature axis, each once, got {axis!r}.")
    return tuple(positive)


class Layout(NamedTuple):
    """Axes of an input, those of the batch and those of the features."""

    order: tuple[int, ...]
    """The input's axes, those of the batch first."""
    batch: tuple[int, ...]
    """The sizes of the batch axes."""
    features: tuple[int, ...]
    """The sizes of the feature axes."""

    @classmethod
    def of(cls, x: Array, axis: int | Sequence[int]) -> "Layout":
        """Describes the layout of `x` with its features on `axis`."""
        axes = feature_axes(x.ndim, axis)
        order = (*(a for a in range(x.ndim) if a not in axes), *axes)
        moved = tuple(x.shape[a] for a in order)
        return cls(order, batch=moved[: -len(axes)], features=moved[-len(axes) :])

    def flatten(self, x: Array) -> Array:
        """Moves all features of `x` to one last axis, with at least one axis before."""
        moved = jnp.transpose(x, self.order)
        if not self.batch:
            moved = moved[None]
        return merge_last(moved, len(self.batch or (1,)))

    def restore(self, flat: Array, like: Array) -> Array:
        """Gives `flat` the axes and the sharding of `like`, which `flatten` was given."""
        back = tuple(self.order.index(axis) for axis in range(len(self.order)))
        return jnp.transpose(reshape_like(flat, jnp.transpose(like, self.order)), back)

    def flatten_mask(self, mask: Array) -> Array:
        """Flattens a mask that fits the input.

        Fewer axes than the input's are flags per example if they fit the leading batch axes, and
        else broadcast against the input from the right, as in NumPy and Flax.
        """
        batch, features = self.batch, self.features
        if 0 < mask.ndim <= len(batch) and mask.shape == batch[: mask.ndim]:
            return mask
        shape = (1,) * (len(self.order) - mask.ndim) + mask.shape
        moved = tuple(shape[a] for a in self.order) if len(shape) == len(self.order) else ()
        if not moved or any(m not in (1, n) for m, n in zip(moved, batch + features)):
            shape = tuple((batch + features)[self.order.index(a)] for a in range(len(self.order)))
            raise ValueError(
                f"mask of shape {mask.shape} does not fit x of shape {shape}. It must be flags per "
                f"example, {batch}, or broadcast against x."
            )
        mask = jnp.transpose(mask.reshape(shape), self.order)
        if any(n > 1 for n in moved[len(batch) :]):
            mask = jnp.broadcast_to(mask, (*moved[: len(batch)], *features))
        return mask.reshape(*(moved[: len(batch)] or (1,)), -1)
