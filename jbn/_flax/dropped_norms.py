"""Remainder of a folded norm: at most a subtraction."""

from typing import Any

import jax
import numpy as np

from jbn._numerics.arrays import common_type


def check_identity(
    path: str,
    var: jax.Array,
    epsilon: float,
    scale: jax.Array | None,
    bias: jax.Array | None,
) -> None:
    """Raises an error unless the norm at `path` subtracts its mean and does nothing else."""
    needed = [(var, 1 - epsilon), (scale, 1.0), (bias, 0.0)]
    if not all(np.allclose(v, value, rtol=0, atol=1e-6) for v, value in needed if v is not None):
        raise ValueError(f"{path or 'the layer itself'} still normalises: fold it first.")


def check_call(path: str, frozen: bool) -> None:
    if not frozen:
        raise ValueError(
            f"{path or 'the layer itself'} was folded and dropped, so it cannot normalise with the "
            "statistics of a batch. Call the model as for inference, with train=False for example."
        )


def subtract(x: jax.Array, mean: jax.Array | None, dtype: Any) -> jax.Array:
    """Returns x - `mean`, whose axes are the last of `x`, in `dtype`."""
    if mean is None:
        return x.astype(dtype)
    wide = common_type(x.dtype, mean.dtype)
    mean = mean.reshape((1,) * (x.ndim - mean.ndim) + mean.shape)
    return (x.astype(wide) - mean.astype(wide)).astype(dtype)
