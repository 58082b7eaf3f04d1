"""Exchange of vectors between the devices that share a batch."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from jbn._types import AxisName


@dataclass(frozen=True)
class AxisGroups:
    """An axis name whose devices share batches within `groups` only."""

    axis_name: AxisName
    groups: tuple[tuple[int, ...], ...]


Devices: TypeAlias = AxisName | AxisGroups


def restrict_axis(
    axis_name: AxisName | None, groups: Iterable[Iterable[int]] | None
) -> Devices | None:
    """Restricts `axis_name` to `groups` if there are any."""
    if groups is None:
        return axis_name
    if axis_name is None:
        raise ValueError("axis_index_groups divides the devices of an axis: give axis_name too.")
    return AxisGroups(axis_name, tuple(tuple(group) for group in groups))


def gather_vectors(tree, axis: Devices) -> tuple[Any, Bool[Array, "K"]]:
    """Stacks every device's vectors along a new first axis, on all devices, in one collective.

    Also says which of them are of this device's group; without groups, all.
    """
    name = axis.axis_name if isinstance(axis, AxisGroups) else axis
    leaves, structure = jax.tree.flatten(tree)
    try:
        count, index = lax.psum(1, name), lax.axis_index(name)
    except NameError as error:
        raise NameError(
            f"axis_name={name!r} is not bound here. It names an axis of shard_map, vmap or "
            "pmap around this call; under plain jit leave it out: there a sharded batch is "
            "normalised as one batch without it."
        ) from error
    vectors = jnp.stack(leaves)
    mine = (jnp.arange(count) == index).reshape(-1, *[1] * vectors.ndim)
    # A psum of one-hot slots rather than all_gather: shard_map then knows the result is the same
    # on every device, and its transpose is one psum.
    slots = jnp.where(mine, vectors[None], 0)
    stacked = lax.psum(slots, name)
    tree = jax.tree.unflatten(structure, [stacked[:, i] for i in range(len(leaves))])
    if not isinstance(axis, AxisGroups):
        return tree, jnp.ones(count, bool)
    # Not the groups of psum itself, which vmap and shard_map refuse.
    group = {device: g for g, devices in enumerate(axis.groups) for device in devices}
    if sorted(device for devices in axis.groups for device in devices) != list(range(count)):
        raise ValueError(
            f"axis_index_groups={axis.groups} must hold each of the indices 0 to {count - 1} of "
            f"axis_name={name!r} exactly once."
        )
    groups = jnp.array([group[device] for device in range(count)])
    return tree, groups == groups[index]
