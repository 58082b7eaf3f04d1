"""Types, shapes and masks of the arrays that come in, each question answered once."""

import math
from numbers import Real

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float


def statistics_dtype(dtype) -> jnp.dtype:
    """The type that statistics of `dtype` data are kept in: at least float32."""
    # Not jnp.promote_types, which refuses bfloat16 with float32 under strict promotion.
    return jnp.dtype(dtype) if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def batch_axes(x: Array) -> tuple[int, ...]:
    """All axes but the last, which holds the features."""
    return tuple(range(x.ndim - 1))


def per_feature(vector: Float[Array, "#C"], x: Array) -> Array:
    """`vector` with as many axes as `x`: rank promotion is never left to JAX."""
    return jnp.reshape(vector, (1,) * (x.ndim - 1) + vector.shape)


def check_float(x: Array, name: str = "x") -> None:
    if not hasattr(x, "dtype"):
        raise TypeError(
            f"{name} must be an array, got {type(x).__name__}. Pass jnp.asarray({name}) instead."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{name} must hold real floating-point numbers, got {x.dtype}. "
            f"Convert it first, for example {name}.astype(jnp.float32)."
        )


def check_features(x: Array, **named: Array) -> None:
    """Each array in `named` must have shape (C,), where C is the last axis of `x`."""
    for name, array in named.items():
        if array.shape != x.shape[-1:]:
            raise ValueError(
                f"{name} must have one number per feature: x of shape {x.shape} has "
                f"{x.shape[-1]} features (its last axis), {name} has shape {array.shape}."
            )


def check_batch(x: Array, *, shared: bool) -> None:
    """`x` must hold a batch: two examples at least, unless others hold the rest (`shared`)."""
    check_float(x)
    if x.ndim == 0 or (x.ndim == 1 and not shared):
        raise ValueError(
            f"x must have shape (*batch, features), got {x.shape}. One example alone, of shape "
            "(features,), is part of a batch only with an axis_name."
        )
    examples = math.prod(x.shape[:-1])
    if examples == 0:
        raise ValueError(f"x of shape {x.shape} holds no examples. Skip empty batches.")
    if examples == 1 and not shared:
        raise ValueError(
            f"x of shape {x.shape} holds one example, whose variance is zero: every output would "
            "be the bias. Use a larger batch (drop the ragged last one), normalize(x, *stats, "
            "*affine) with the running statistics, or an axis_name if other devices hold the rest."
        )


def check_number(name: str, value, *, low: float, high: float, open_low: bool = False) -> None:
    """A concrete scalar `value` must lie in [low, high], or in (low, high] if `open_low`."""
    if isinstance(value, Tracer):
        return
    allowed = f"{'(' if open_low else '['}{low:g}, {high:g}]"
    scalar = isinstance(value, Real) or (hasattr(value, "dtype") and value.shape == ())
    if not scalar or isinstance(value, bool):
        raise TypeError(f"{name} must be a number in {allowed}, got {value!r}.")
    number = float(value)
    if not (low < number <= high if open_low else low <= number <= high):
        raise ValueError(f"{name} must lie in {allowed}, got {number:g}.")


def broadcast_mask(mask: Array | None, x: Array) -> Bool[Array, "..."] | None:
    """`mask` with as many axes as `x`, each equal to that of `x` or 1.

    A mask of fewer axes than `x` covers the leading ones, so (N,) always means examples and
    never features, even where N equals C.
    """
    if mask is None:
        return None
    if not hasattr(mask, "dtype") or jnp.issubdtype(mask.dtype, jnp.inexact):
        raise TypeError(
            f"mask must be an array of bool (True = counts), got "
            f"{getattr(mask, 'dtype', type(mask).__name__)}. Weights are not supported: "
            "compare them with a threshold first."
        )
    leading = mask.shape == x.shape[: mask.ndim]
    aligned = mask.ndim == x.ndim and all(m in (1, n) for m, n in zip(mask.shape, x.shape))
    if not (mask.ndim and (leading or aligned)):
        raise ValueError(
            f"mask of shape {mask.shape} does not fit x of shape {x.shape}. It must be one flag "
            f"per example, {x.shape[:-1]} or {(*x.shape[:-1], 1)}, or one per element, {x.shape}."
        )
    return jnp.reshape(mask, mask.shape + (1,) * (x.ndim - mask.ndim)).astype(bool)
