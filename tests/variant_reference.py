"""Every variant in numpy's extended precision, with what each calls its gradient."""

import jax.numpy as jnp
import numpy as np
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


def _normalize(variant, x, scale, bias, old_mean, old_var, ct, epsilon, mask) -> Reference:
    rest = (scale, bias, old_mean, old_var)
    if isinstance(variant, jbn.Ghost):
        return _ghost(variant, x, rest, ct, epsilon, mask)
    if isinstance(variant, jbn.Noisy):
        return _noisy(variant, x, rest, ct, epsilon, mask)

    axes = tuple(range(x.ndim - 1))
    size = mask.sum(axes)

    def average(a):
        return np.where(mask, a, 0).sum(axes) / np.maximum(size, 1)

    centred = not isinstance(variant, jbn.Uncentered)
    mean = average(x) if centred else 0 * old_mean
    var = average((x - mean) ** 2)
    deviation, old_deviation = np.sqrt(var + epsilon), np.sqrt(np.maximum(old_var, 0) + epsilon)
    r, d, center, through_mean, through_var = 1, 0, mean, centred, True
    if isinstance(variant, jbn.Renorm):
        r_max, d_max = (float(np.float32(bound)) for bound in (variant.r_max, variant.d_max))
        r = np.clip(deviation / old_deviation, 1 / r_max, r_max)
        d = np.clip((mean - old_mean) / old_deviation, -d_max, d_max)
    if isinstance(variant, jbn.Detached):
        through_mean, through_var = not variant.mean, not variant.var
    if isinstance(variant, jbn.Running):
        center, divisor, through_mean, through_var = old_mean, old_deviation, False, False
    else:
        divisor = deviation

    xhat = (x - center) / divisor
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


def _ghost(variant, x, rest, ct, epsilon, mask) -> Reference:
    """Each group by itself; the moments are those of the whole, which pooling gives."""
    whole = _normalize(variant.base, x, *rest, ct, epsilon, mask)
    parts = [
        _normalize(variant.base, x[rows], *rest, ct[rows], epsilon, mask[rows])
        for rows in np.arange(len(x)).reshape(-1, variant.group_size)
    ]
    bounds = {
        **whole.bounds,
        **{name: np.concatenate([part.bounds[name] for part in parts]) for name in ("y", "dx")},
        **{name: sum(part.bounds[name] for part in parts) for name in ("dscale", "dbias")},
    }
    return whole._replace(
        y=np.concatenate([part.y for part in parts]),
        dx=np.concatenate([part.dx for part in parts]),
        dscale=sum(part.dscale for part in parts),
        dbias=sum(part.dbias for part in parts),
        bounds=bounds,
    )


def _noisy(variant, x, rest, ct, epsilon, mask) -> Reference:
    """The base stretched and shifted by the noise, which is read off inputs that show it."""
    c = x.shape[-1]
    noise = jbn.Noisy(variant.key, variant.mean, variant.scale, variant.spread, jbn.Running())

    def reveal(scale, bias):
        vectors = jbn.Affine(jnp.full(c, scale, "f4"), jnp.full(c, bias, "f4"))
        y, _ = jbn.batch_norm(jnp.zeros(x.shape), vectors, jbn.init(c)[1], variant=noise)
        return np.asarray(y).astype(np.longdouble)

    shift = reveal(1, 0)
    stretch = reveal(0, 1) - shift
    base = _normalize(variant.base, x, *rest, ct * stretch, epsilon, mask)
    bounds = base.bounds | {"y": base.bounds["y"] * np.abs(stretch).max() + np.abs(shift).max()}
    return base._replace(y=base.y * stretch + shift, bounds=bounds)
