"""Arrays over the Explicit axes of a mesh: alignment of vectors with features, and reshapes.

`jax.make_mesh` makes Explicit axes by default: there an array's sharding is part of its type.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import jax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float


def is_explicit(x: Array) -> bool:
    """Tells whether the type of `x` names axes of a mesh."""
    return AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types


def may_be_sharded(x: Array) -> bool:
    """Tells whether `x` may lie on several devices, which it does not inside `shard_map`."""
    mesh = jax.typeof(x).sharding.mesh
    if is_explicit(x):
        return True
    if mesh.empty:
        return jax.device_count() > 1
    return any(
        size > 1 and kind != AxisType.Manual for size, kind in zip(mesh.axis_sizes, mesh.axis_types)
    )


def mesh_of(x: Array) -> AbstractContextManager:
    """Sets the mesh of Explicit axes that `x` lies on: JAX maps loops over them only there."""
    if not is_explicit(x):
        return nullcontext()
    return jax.sharding.use_abstract_mesh(jax.typeof(x).sharding.mesh)


def like_features(vector: Float[Array, "C"], x: Array) -> Float[Array, "C"]:
    """Shards `vector` as the features of `x` are, its last axis."""
    return _reshard(vector, x, P(_spec(x)[-1])) if is_explicit(x) else vector


def sharded_like(value: Array, like: Array) -> Array:
    """Shards `value` as `like` is, an array of the same shape."""
    return _reshard(value, value, P(*_spec(like))) if is_explicit(value) else value


def reshape_like(x: Array, like: Array) -> Array:
    """Gives `x` the shape and the sharding of `like`."""
    return _reshape(x, like.shape, _spec(like))


def merge_last(x: Array, kept: int) -> Array:
    """Merges all axes of `x` after the first `kept` into one."""
    # A shard of the merged axis is one of its first; shards of the others are brought together.
    shape = (*x.shape[:kept], math.prod(x.shape[kept:]))
    return _reshape(x, shape, _spec(x)[: kept + 1])


def split_first(x: Array, size: int) -> Array:
    """Splits the first axis of `x` into groups of `size`."""
    first, *rest = _spec(x)
    groups = x.shape[0] // size
    if is_explicit(x) and first is not None:
        mesh = jax.typeof(x).sharding.mesh
        names = first if isinstance(first, tuple) else (first,)
        # Groups that do not fit a shard are brought together.
        first = None if groups % math.prod(mesh.shape[name] for name in names) else first
    return _reshape(x, (groups, size, *x.shape[1:]), (first, None, *rest))


def _reshape(x: Array, shape: tuple[int, ...], spec: tuple) -> Array:
    if x.shape == shape or not is_explicit(x):
        return x.reshape(shape)
    mesh = jax.typeof(x).sharding.mesh
    return jax.lax.reshape(x, shape, out_sharding=NamedSharding(mesh, P(*spec)))


def _spec(x: Array) -> tuple:
    spec = tuple(jax.typeof(x).sharding.spec)
    return spec + (None,) * (x.ndim - len(spec))


def _reshard(value: Array, x: Array, spec: P) -> Array:
    return jax.sharding.reshard(value, NamedSharding(jax.typeof(x).sharding.mesh, spec))
