"""Every variant in numpy's extended precision, with what each calls its gradient."""

import jax.numpy as jnp
import numpy as np
import reference
from reference import Reference

import jbn


def batch_norm(
    variant,
    x,
    affine,
    stats,
    cotangent,
    *,
    epsilon=1e-5,
    mask=None,
    epsilon_dtype=np.float32,
) -> Reference:
    """As `reference.batch_norm`, by `variant`; its bounds of y and dx have the shape of x.

    Gradients are those of sum(cotangent * y). Arrays are features last; `mask` is of the shape of
    x or of its batch axes.
    """
    x, cotangent = (np.asarray(a).astype(np.longdouble) for a in (x, cotangent))
    scale, bias, mean, var = (np.asarray(a).astype(np.longdouble) for a in (*affine, *stats))
    mask = np.ones(x.shape, bool) if mask is None else np.asarray(mask)
    mask = np.broadcast_to(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x.shape)
    x = np.where(mask | np.isfinite(x), x, 0)
    epsilon = np.longdouble(epsilon_dtype(epsilon))
    cotangent = np.where(mask, cotangent, 0)
    return _normalize(variant, x, scale, bias, mean, var, cotangent, epsilon, mask)


def _normalize(
    variant, x, scale, bias, old_mean, old_var, ct, epsilon, mask, groups=1
) -> Reference:
    """`batch_norm`; the features are those of as many `groups`, one after the other."""
    rest = (scale, bias, old_mean, old_var)
    if isinstance(variant, jbn.Ghost):
        return _ghost(variant, x, rest, ct, epsilon, mask, groups)
    if isinstance(variant, jbn.Noisy):
        return _noisy(variant, x, rest, ct, epsilon, mask, groups)

    axes = tuple(range(x.ndim - 1))
    size = mask.sum(axes)

    def average(a):
        return np.where(mask, a, 0).sum(axes) / np.maximum(size, 1)

    is_centred = not isinstance(variant, jbn.Uncentered)
    centred, mean = x, 0 * old_mean
    if is_centred:
        centred, mean = reference.centre(x, mask, axes, np.maximum(size, 1))
    var = average(centred**2)
    deviation, old_deviation = np.sqrt(var + epsilon), np.sqrt(np.maximum(old_var, 0) + epsilon)
    r, d, through_mean, through_var = 1, 0, is_centred, True
    if isinstance(variant, jbn.Renorm):
        r_max, d_max = (float(np.float32(bound)) for bound in (variant.r_max, variant.d_max))
        r = np.clip(deviation / old_deviation, 1 / r_max, r_max)
        d = np.clip((mean - old_mean) / old_deviation, -d_max, d_max)
    if isinstance(variant, jbn.Detached):
        through_mean, through_var = not variant.mean, not variant.var
    if isinstance(variant, jbn.Running):
        centred, divisor, through_mean, through_var = x - old_mean, old_deviation, False, False
    else:
        divisor = deviation

    xhat = centred / divisor
    through = through_mean * average(ct) + xhat * through_var * average(ct * xhat)
    dx = scale * r / divisor * (ct - np.where(mask, through, 0))
    y = scale * (xhat * r + d) + bias
    shown = np.where(mask, np.abs(y - bias), 0).max(axes)
    slope = np.abs(scale * r) / divisor
    bounds = {
        "y": np.broadcast_to(shown + np.abs(bias) + np.abs(scale), x.shape),
        "mean": np.abs(mean) + deviation,
        "var": deviation**2,
        "dx": np.broadcast_to(slope * np.abs(ct).max(axes), x.shape),
        "dscale": np.abs(ct * (np.abs(xhat * r) + np.abs(d))).sum(axes),
        "dbias": np.abs(ct).sum(axes),
    }
    dscale, dbias = (ct * (xhat * r + d)).sum(axes), ct.sum(axes)
    return Reference(y, mean, var, size, dx, dscale, dbias, bounds)


def _ghost(variant, x, rest, ct, epsilon, mask, outer) -> Reference:
    """Each group by itself, as features of its own; the moments are the whole's, by pooling."""
    whole = _normalize(variant.base, x, *rest, ct, epsilon, mask, outer)
    groups = len(x) // variant.group_size

    def split(a):
        a = a.reshape(groups, variant.group_size, *a.shape[1:])
        return np.moveaxis(a, 0, -2).reshape(*a.shape[1:-1], -1)

    def join(a):
        a = np.moveaxis(a.reshape(*a.shape[:-1], groups, -1), -2, 0)
        return a.reshape(x.shape)

    repeated = (np.tile(v, groups) for v in rest)
    arrays = (split(x), *repeated, split(ct), epsilon, split(mask))
    parts = _normalize(variant.base, *arrays, groups * outer)
    total = {name: a.reshape(groups, -1).sum(0) for name, a in parts.bounds.items() if a.ndim == 1}
    return whole._replace(
        y=join(parts.y),
        dx=join(parts.dx),
        dscale=parts.dscale.reshape(groups, -1).sum(0),
        dbias=parts.dbias.reshape(groups, -1).sum(0),
        bounds={
            **whole.bounds,
            "y": join(parts.bounds["y"]),
            "dx": join(parts.bounds["dx"]),
            "dscale": total["dscale"],
            "dbias": total["dbias"],
        },
    )


def _noisy(variant, x, rest, ct, epsilon, mask, groups) -> Reference:
    """The base stretched and shifted by the noise, which is read off inputs that show it."""
    noise = jbn.Noisy(variant.key, variant.mean, variant.scale, variant.spread, jbn.Running())
    shape = (*x.shape[:-1], x.shape[-1] // groups)
    affine, stats = jbn.init(shape[-1])

    def reveal(scale, bias):
        vectors = jbn.Affine(affine.scale * scale, affine.scale * bias)
        y, _ = jbn.batch_norm(jnp.zeros(shape), vectors, stats, variant=noise)
        return np.tile(np.asarray(y).astype(np.longdouble), groups)

    shift = reveal(1, 0)
    stretch = reveal(0, 1) - shift
    base = _normalize(variant.base, x, *rest, ct * stretch, epsilon, mask, groups)
    bounds = base.bounds | {"y": base.bounds["y"] * np.abs(stretch).max() + np.abs(shift).max()}
    return base._replace(y=base.y * stretch + shift, bounds=bounds)
