"""Checks of input arrays: types, shapes, masks and weights."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float


def as_array(value: Any, name: str) -> Array:
    """Returns `value` as an array of JAX, or says why it is none.

    Arrays of NumPy are converted here, once: big-endian ones, which JAX does not read, too. Masked
    ones are refused, because some of JAX's functions drop the mask.
    """
    if isinstance(value, Array):
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array of NumPy, which JAX does not know. Pass {name}.data, and "
            f"mask=~{name}.mask where a mask is taken: True where an entry counts."
        )
    if hasattr(value, "__jax_array__"):  # a variable of NNX, for example
        return jnp.asarray(value)
    if not isinstance(value, np.ndarray | np.generic):
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        raise TypeError(
            f"{name} must be an array of JAX or NumPy, got {kind}. Pass jnp.asarray({name})."
        )
    try:
        return jnp.asarray(value.astype(value.dtype.newbyteorder("="), copy=False))
    except TypeError as error:
        raise TypeError(
            f"{name} holds {value.dtype}, a type that JAX does not have. Convert it first, for "
            f"example {name}.astype(np.float32)."
        ) from error


def native(tree: Any) -> Any:
    """Returns `tree` with its NumPy arrays as arrays of JAX (`as_array`), all else as it is."""
    return jax.tree.map(
        lambda leaf: as_array(leaf, "a batch") if isinstance(leaf, np.ndarray) else leaf, tree
    )


def statistics_dtype(dtype) -> jnp.dtype:
    """Returns the type that statistics of `dtype` data are kept in: at least float32."""
    # Not jnp.promote_types, which refuses bfloat16 with float32 under strict promotion.
    wide = jax.dtypes.canonicalize_dtype(dtype)
    return wide if jnp.finfo(wide).bits >= 32 else jnp.dtype(jnp.float32)


def common_type(one: Any, other: Any) -> jnp.dtype:
    """Returns the type that holds both, as a Flax layer promotes also where promotion is strict.

    Floats of less than 16 bits, which JAX promotes to nothing, count as float32.
    """
    one, other = jnp.dtype(one), jnp.dtype(other)
    if one == other:
        return one

    def promotable(dtype):
        narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 16
        return jnp.float32 if narrow else dtype

    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(promotable(one), promotable(other))


def batch_axes(x: Array) -> tuple[int, ...]:
    """Returns all axes but the last, which holds the features."""
    return tuple(range(x.ndim - 1))


def per_feature(vector: Float[Array, "#C"], x: Array) -> Array:
    """Gives `vector` as many axes as `x`: rank promotion is never left to JAX."""
    return jnp.reshape(vector, (1,) * (x.ndim - 1) + vector.shape)


def select(condition: Array, yes: Array | int | float, no: Array | int | float) -> Array:
    """Does what `jnp.where` does with arrays of one shape and numbers, in an operation of its own.

    `jnp.where` is a function of the program, traced and compiled for each shape and type.
    """
    like = yes if isinstance(yes, Array) else no
    yes, no = (v if isinstance(v, Array) else lax.full_like(like, v) for v in (yes, no))
    return lax.select(condition, yes, no)


def check_inexact(value: Any, name: str) -> Array:
    """Returns `value` as an array of floating-point numbers, which may be complex."""
    x = as_array(value, name)
    if not jnp.issubdtype(x.dtype, jnp.complexfloating):
        return check_float(x, name)
    return x


def check_float(value: Any, name: str = "x") -> Array:
    """Returns `value` as an array of real floating-point numbers, or says why it is none."""
    x = as_array(value, name)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{name} must hold real floating-point numbers, got {x.dtype}. "
            f"Convert it first, for example {name}.astype(jnp.float32)."
        )
    if float(jnp.finfo(x.dtype).min) >= 0:
        raise TypeError(f"{name} must hold a type with negative numbers, got {x.dtype}.")
    return x


def check_float_dtype(dtype: Any) -> jnp.dtype:
    """Returns `dtype`, real and floating, as the type that JAX makes of it (without x64, say)."""
    kind = jax.dtypes.canonicalize_dtype(dtype)
    if not jnp.issubdtype(kind, jnp.floating):
        raise TypeError(f"dtype must be real and floating-point, got {kind}.")
    return kind


def check_features(x: Array, **named: Any) -> None:
    """Refuses arrays, or records of arrays, whose shape is not (C,), the last axis of `x`."""
    for name, value in named.items():
        for path, array in jax.tree_util.tree_leaves_with_path(value):
            if array.shape != x.shape[-1:]:
                name += jax.tree_util.keystr(path)
                raise ValueError(
                    f"{name} must have one number per feature: x of shape {x.shape} has "
                    f"{x.shape[-1]} features (its last axis), {name} has shape {array.shape}."
                )


def check_filled(x: Array) -> None:
    """Refuses an `x` of shape (*batch, features) without an example or a feature."""
    if x.shape[-1] == 0:
        raise ValueError(f"x of shape {x.shape} holds no features (its last axis).")
    if math.prod(x.shape[:-1]) == 0:
        raise ValueError(f"x of shape {x.shape} holds no examples. Skip empty batches.")


def check_batch(value: Any, *, may_be_single: bool) -> Array:
    """Returns `value` as a batch: of two examples at least, unless it `may_be_single`."""
    x = check_float(value)
    if x.ndim == 0 or (x.ndim == 1 and not may_be_single):
        raise ValueError(
            f"x must have shape (*batch, features), got {x.shape}. One example alone, of shape "
            "(features,), is part of a batch only with an axis_name."
        )
    check_filled(x)
    if math.prod(x.shape[:-1]) == 1 and not may_be_single:
        raise ValueError(
            f"x of shape {x.shape} holds one example, whose variance is zero: every output would "
            "be the bias. Use a larger batch (drop the ragged last one), normalize(x, *stats, "
            "*affine) with the running statistics, or an axis_name if other devices hold the rest."
        )
    return x


def broadcast_mask(mask: Array | None, x: Array) -> Bool[Array, "..."] | None:
    """Gives `mask` as many axes as `x`, each equal to that of `x` or 1.

    A mask of fewer axes than `x` covers the leading ones, so (N,) always means examples and
    never features, even where N equals C.
    """
    if mask is None:
        return None
    mask = as_array(mask, "mask")
    if not (mask.dtype == bool or jnp.issubdtype(mask.dtype, jnp.integer)):
        raise TypeError(
            f"mask must be an array of bool (True = counts), got {mask.dtype}. Weights go to "
            "batch_moments(x, weights=...); here compare them with a threshold first."
        )
    return _align("mask", "flag", mask, x).astype(bool)


def align_weights(weights: Any, x: Array) -> Float[Array, "..."]:
    """Gives `weights`, in the shapes of a mask, as many axes as `x`."""
    return _align("weights", "number", check_float(weights, "weights"), x)


def _align(name: str, of: str, array: Array, x: Array) -> Array:
    leading = array.shape == x.shape[: array.ndim]
    aligned = array.ndim == x.ndim and all(m in (1, n) for m, n in zip(array.shape, x.shape))
    if not (array.ndim and (leading or aligned)):
        raise ValueError(
            f"{name} of shape {array.shape} does not fit x of shape {x.shape}. It must be one {of} "
            f"per example, {x.shape[:-1]} or {(*x.shape[:-1], 1)}, or one per element, {x.shape}."
        )
    return jnp.reshape(array, array.shape + (1,) * (x.ndim - array.ndim))
