"""Batch norm of complex numbers: one variance for both parts, so that their phase is kept."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex

from jbn._batch import Batch, Variant
from jbn._moments import sync_measured
from jbn._normalize import normalize
from jbn._numerics.arrays import broadcast_mask, check_batch, per_feature
from jbn._numerics.devices import restrict_axis
from jbn._running import update_running
from jbn._types import Affine, AxisName, Moments, RunningStats
from jbn._variants import Standard


def complex_normalize(
    x: Complex[Array, "*batch C"], mean: Array, var: Array, scale: Array, bias: Array, *, epsilon
) -> Complex[Array, "*batch C"]:
    """Normalises by a complex mean and a real variance; scale and bias may be either."""
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
    r"""Normalises with $\sigma_B^2$ the mean of $|x - \mu_B|^2$. The running mean is complex."""
    if variant != Standard():
        raise TypeError(f"Complex input is normalised by Standard() only, not by {variant}.")
    if not jnp.iscomplexobj(stats.mean):
        raise TypeError(
            f"Complex input needs a complex running mean, got {stats.mean.dtype}. Convert it, or "
            "build jbn.nnx.BatchNorm with dtype=jnp.complex64."
        )
    mask = broadcast_mask(mask, x)
    check_batch(x.real, may_be_single=True)
    parts = [
        Batch.of(part, mask, guess, None)
        for part, guess in ((x.real, stats.mean.real), (x.imag, stats.mean.imag))
    ]
    measured = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(part.measure(epsilon) for part in parts)
    )
    if axis_name is not None:
        measured = sync_measured(measured, restrict_axis(axis_name, axis_index_groups))
    # Both parts in the same units, with the sum of their variances.
    measured = measured.with_factor(jnp.min(measured.frame.factor, axis=0, keepdims=True))
    var = jnp.broadcast_to(jnp.sum(measured.var, axis=0), measured.var.shape)
    measured = measured._replace(var=var)

    one, zero = jnp.ones_like(var[0]), jnp.zeros_like(var[0])
    re, im = (
        part.normalize(
            jax.tree.map(lambda leaf, i=i: leaf[i], measured), Affine(one, zero), epsilon
        )
        for i, part in enumerate(parts)
    )
    scale, bias = (per_feature(v.astype(x.dtype), x) for v in affine)
    moments = measured.moments()
    mean = lax.complex(*moments.mean)
    stats = update_running(stats, Moments(mean, moments.var[0], moments.size[0]), momentum=momentum)
    return lax.complex(re, im) * scale + bias, stats
