"""Checks of input numbers, records and variants.

A number that JAX traces is checked by its shape and type only; its value is not known yet.
"""

import operator
from contextlib import AbstractContextManager
from numbers import Real
from typing import Any, TypeGuard, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from jbn._numerics.arrays import check_float, check_inexact, statistics_dtype
from jbn._types import Moments, RunningStats

Record = TypeVar("Record", bound=tuple)


def check_number(
    name: str, value: Any, *, low: float, high: float, open_low: bool = False
) -> float | Array:
    """Returns the scalar `value` of [low, high], or of (low, high] if `open_low`."""
    allowed = f"{'(' if open_low else '['}{low:g}, {high:g}]"
    if not _is_number(value):
        raise TypeError(f"{name} must be a number in {allowed}, got {value!r}.")
    if isinstance(value, Tracer):
        return value
    # device_get, because float() of an array is an implicit transfer.
    number = float(jax.device_get(value)) if hasattr(value, "dtype") else value
    if not (low < number <= high if open_low else low <= number <= high):
        raise ValueError(f"{name} must lie in {allowed}, got {value!r}.")
    return value if isinstance(value, Array) else float(value)


def _is_number(value: Any) -> bool:
    if not isinstance(value, Array | np.ndarray | np.generic):
        return isinstance(value, Real) and not isinstance(value, bool)
    real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
    return real and value.shape == ()


def check_momentum(value: Any) -> float | Array:
    return check_number("momentum", value, low=0.0, high=1.0)


def check_epsilon(value: Any, dtype: Any) -> float | Array:
    """Returns `value`, positive and finite in `dtype` too; an array in that type."""
    info = jnp.finfo(dtype)
    # Not below the smallest normal number: processors flush what is smaller to zero.
    low, high = float(info.smallest_normal), float(info.max)
    value = check_number("epsilon", value, low=low, high=high)
    return value.astype(dtype) if isinstance(value, Array) else value


def as_int(value: Any) -> int | None:
    """Returns a Python or NumPy integer as an int, anything else (a bool, too) as None."""
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def check_num_features(value: Any) -> int:
    features = as_int(value)
    if features is None or features < 1:
        raise ValueError(f"num_features must be a positive int, got {value!r}.")
    return features


def as_record(name: str, value: Any, kind: type[Record], *, complex_mean: bool = False) -> Record:
    """Returns `value`, a record of class `kind`, with its leaves as arrays of JAX."""
    if not isinstance(value, kind):
        fields = ", ".join(kind._fields)  # type: ignore[attr-defined]
        raise TypeError(
            f"{name} must be a jbn.{kind.__name__}, got {type(value).__name__}. Build one from its "
            f"arrays: jbn.{kind.__name__}({fields})."
        )

    if all(isinstance(leaf, Array) and jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in value):
        return value

    def checked(path, leaf):
        label = name + jax.tree_util.keystr(path)
        real = not complex_mean or label.endswith((".var", ".size"))
        return check_float(leaf, label) if real else check_inexact(leaf, label)

    return jax.tree_util.tree_map_with_path(checked, value, is_leaf=lambda node: node is not value)


def as_moments(value: Any, name: str = "moments", *, of: RunningStats | None = None) -> Moments:
    """Returns `value`, moments of one shape: that of the statistics `of`, where there are any."""
    moments = as_record(name, value, Moments, complex_mean=True)
    shapes = {leaf.shape for leaf in moments}
    if len(shapes) > 1 or (of is not None and shapes != {of.mean.shape}):
        came = ", ".join(f"{field} {leaf.shape}" for field, leaf in zip(moments._fields, moments))
        needed = "one shape" if of is None else f"the shape of the statistics, {of.mean.shape}"
        raise ValueError(
            f"{name} must have {needed}, got {came}. Moments stacked from parts are first pooled, "
            "by pool_moments."
        )
    return moments


def as_vector(name: str, value: Any, x: Array) -> Array:
    """Returns `value`, one number per feature of `x` or one for all, as an array per feature."""
    if isinstance(value, Real) and not isinstance(value, bool):
        with numbers_to_device():
            return jnp.full(x.shape[-1:], float(value), statistics_dtype(x.dtype))
    array = check_float(value, name)
    return jnp.broadcast_to(array, x.shape[-1:]) if array.ndim == 0 else array


def check_variant(name: str, value: Any) -> None:
    if isinstance(value, type) or not callable(value):
        came = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
        if is_schedule(value):
            came = f"the schedule {came}: take its at(step), or let a layer count the steps"
        raise TypeError(f"{name} must be a variant such as jbn.Standard(), got {came}.")


def is_schedule(value: Any) -> TypeGuard[Any]:
    """Tells whether `value` has a variant for each step: a method `at`, unlike an array's."""
    return callable(getattr(value, "at", None)) and not isinstance(value, type)


def numbers_to_device() -> AbstractContextManager:
    """Lets Python numbers reach the device where the user has disallowed implicit transfers.

    `momentum=0.9` is as explicit as a number gets, and constants of our own are no one's mistake.
    Arrays of NumPy go through `as_array` before, under the user's own rule.
    """
    return jax.transfer_guard_host_to_device("allow")
