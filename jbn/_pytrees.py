"""Frozen dataclasses and records as pytrees: their leaves, equality and serialised form."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax import export
from jax.tree_util import GetAttrKey, Partial

Class = TypeVar("Class", bound=type)


def register_dataclass(*leaves: str) -> Callable[[Class], Class]:
    """Makes a frozen dataclass a pytree whose fields `leaves` may be traced.

    Its other fields are part of the program, and must be JSON for `jax.export` to write them.
    """

    def register(cls: Class) -> Class:
        others = [field.name for field in dataclasses.fields(cls) if field.name not in leaves]

        def flatten(value: Any) -> tuple[list, tuple]:
            children = [as_static(getattr(value, name)) for name in leaves]
            return children, tuple(getattr(value, name) for name in others)

        def flatten_with_keys(value: Any) -> tuple[list, tuple]:
            children, rest = flatten(value)
            return list(zip(map(GetAttrKey, leaves), children)), rest

        def unflatten(rest: tuple, children: Any) -> Any:
            # Not by the constructor, which would refuse the placeholders that JAX puts in.
            value = object.__new__(cls)
            for name, field in zip([*leaves, *others], [*map(_from_child, children), *rest]):
                object.__setattr__(value, name, field)
            return value

        jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
        cls.__eq__ = equal  # type: ignore[method-assign]
        return register_export(cls)

    return register


def register_export(cls: Class) -> Class:
    """Lets `jax.export` write a pytree's class, whose auxiliary data are None or a JSON tuple."""

    def read(written: bytes) -> tuple | None:
        rest = json.loads(written)
        return None if rest is None else tuple(rest)

    return export.register_pytree_node_serialization(
        cls,
        serialized_name=f"jbn.{cls.__name__}",
        serialize_auxdata=lambda rest: json.dumps(rest).encode(),
        deserialize_auxdata=read,
    )


def register_record(cls: Class) -> Class:
    """Lets `jax.export` write a named tuple, and compares its arrays by value."""
    # A tuple's own != does not ask ==.
    cls.__eq__, cls.__ne__ = equal, differ  # type: ignore[method-assign]
    return export.register_namedtuple_serialization(cls, serialized_name=f"jbn.{cls.__name__}")


def as_static(value: Any) -> Any:
    """Makes a callable whose class is no pytree, as a user's variant may be, a static pytree."""
    return Partial(value) if callable(value) and jax.tree_util.all_leaves([value]) else value


def _from_child(value: Any) -> Any:
    bare = isinstance(value, Partial) and not (value.args or value.keywords)
    return value.func if bare else value


def equal(one: Any, other: Any) -> bool:
    """Tells whether two values of one class hold equal leaves: `==`, where those may be arrays."""
    if type(one) is not type(other):
        return False
    leaves, structure = jax.tree.flatten(one)
    others, theirs = jax.tree.flatten(other)
    return structure == theirs and all(map(_same, leaves, others))


def _same(a: Any, b: Any) -> bool:
    if any(getattr(a, key, None) != getattr(b, key, None) for key in ("shape", "dtype")):
        return False
    same = a == b
    return bool(same.all() if hasattr(same, "all") else same)


def differ(one: Any, other: Any) -> bool:
    return not equal(one, other)
