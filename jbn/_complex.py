"""Batch norm of complex numbers: one variance for both parts, so that their phase is kept."""

from collections.abc import Iterable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex

from jbn._arrays import broadcast_mask, check_batch, per_feature
from jbn._moments import batch_moments, clean_padding, sync_moments
from jbn._normalize import normalize
from jbn._running import update_running
from jbn._types import Affine, AxisName, Moments, RunningStats, Variant
from jbn._variants import Standard


def complex_normalize(
    x: Complex[Array, "*batch C"], mean: Array, var: Array, scale: Array, bias: Array, *, epsilon
) -> Complex[Array, "*batch C"]:
    """`normalize` by a complex mean and a real variance; scale and bias may be either."""
    re = normalize(x.real, mean.real, var, epsilon=epsilon)
    im = normalize(x.imag, mean.imag, var, epsilon=epsilon)
    scale, bias = (per_feature(v.astype(x.dtype), x) for v in (scale, bias))
    return lax.complex(re, im) * scale + bias


def complex_batch_norm(
    x: Complex[Array, "*batch C"],
    affine: Affine,
    stats: RunningStats,
    *,
    variant: Variant,
    momentum,
    epsilon,
    mask: Array | None,
    axis_name: AxisName | None,
    axis_index_groups: Iterable[Iterable[int]] | None,
) -> tuple[Complex[Array, "*batch C"], RunningStats]:
    r"""`batch_norm` with $\sigma_B^2$ the mean of $|x - \mu_B|^2$. The running mean is complex."""
    if variant != Standard():
        raise TypeError(f"Complex input is normalised by Standard() only, not by {variant}.")
    if not jnp.iscomplexobj(stats.mean):
        raise TypeError(
            f"Complex input needs a complex running mean, got {stats.mean.dtype}. Convert it, or "
            "build jbn.nnx.BatchNorm with dtype=jnp.complex64."
        )
    mask = broadcast_mask(mask, x)
    parts = [clean_padding(part, mask) for part in (x.real, x.imag)]
    check_batch(parts[0], shared=axis_name is not None or mask is not None)

    moments = [batch_moments(part, mask=mask) for part in parts]
    moments = Moments(*(jnp.concatenate(leaves) for leaves in zip(*moments)))
    if axis_name is not None:
        moments = sync_moments(moments, axis_name, axis_index_groups=axis_index_groups)
    (re, im), (re_var, im_var), (size, _) = (jnp.split(leaf, 2) for leaf in moments)
    moments = Moments(lax.complex(re, im), re_var + im_var, size)

    y = complex_normalize(lax.complex(*parts), *moments[:2], *affine, epsilon=epsilon)
    return y, update_running(stats, moments, momentum=momentum)
