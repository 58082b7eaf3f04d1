"""The distance of batch norm from extended precision, and the bound that it is held to.

As a command it prints the worst of every family that is out of bounds, and fails if there is one:
`python tests/bound.py [PATTERN ...]`, of which one must occur in a family's name.
"""

import math
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import reference
import variant_reference
from families import FAMILIES, LARGEST, draw, statistics

import jbn

# In the units of `reference`; derivatives of the gradient in those of their largest entry.
BOUND = {
    "y": 2e-6,
    "mean": 3e-7,
    "var": 4e-6,
    "dx": 2e-6,
    "dscale": 1e-6,
    "dbias": 3e-7,
    "second": 3e-5,
    "third": 1e-5,
}
TINY = np.finfo(np.float32).tiny


def function(x, affine, stats, variant, mask, epsilon):
    return jbn.batch_norm(
        x, affine, stats, variant=variant, mask=mask, epsilon=epsilon, momentum=0.0
    )


@partial(jax.jit, static_argnames=("front", "order"))
def everything(front, order, x, affine, stats, variant, ct, direction, mask, epsilon):
    """Values, new statistics, gradients, and directional derivatives of the gradient of x."""

    def pullback(x, affine):
        def loss(x, affine):
            y, new = front(x, affine, stats, variant, mask, epsilon)
            return jnp.sum(y.astype(ct.dtype) * ct), (y, new)

        return jax.grad(loss, (0, 1), has_aux=True)(x, affine)

    def along(function):
        return lambda x: jax.jvp(function, (x,), (direction,))[1]

    (dx, daffine), (y, new) = pullback(x, affine)
    found = {"y": y, "mean": new.mean, "var": new.var, "dx": dx}
    found |= {"dscale": daffine.scale, "dbias": daffine.bias}

    def derivative(x):
        return pullback(x, affine)[0][0]

    for name in ("second", "third")[: order - 1]:
        derivative = along(derivative)
        found[name] = derivative(x)
    return found


def errors(
    x,
    stats="cold",
    mask=None,
    *,
    variant=jbn.Standard(),
    front=function,
    epsilon=1e-5,
    order=3,
) -> dict[str, float]:
    """The error of each quantity in units of its bound's scale.

    `x` may be half precision; `stats` is a name of `families.STATISTICS`. Where `mask` excludes,
    `x` is NaN to the function. Derivatives above the first are `Standard`'s, and of eight rows at
    least: those of fewer cancel, so that their largest entry is no scale.
    """
    order = order if math.prod(x.shape[:-1]) >= 8 else 1
    rng = np.random.default_rng(len(x))
    wide = np.asarray(x).astype(np.float32)
    where = np.ones(x.shape, bool)
    if mask is not None:
        where = np.broadcast_to(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x.shape)
    scale, bias = rng.normal(1, 1, (2, x.shape[-1])).astype(np.float32)
    # Of the type of y, in which any cotangent arrives.
    ct = np.where(where, rng.standard_normal(x.shape), 0).astype(x.dtype).astype(np.float32)

    def right(variant, old):
        return variant_reference.batch_norm(
            variant, wide, (scale, bias), old, ct, epsilon=epsilon, mask=mask
        )

    plain = right(jbn.Standard(), (np.zeros_like(bias), np.ones_like(bias)))
    old = statistics(stats, plain.mean, plain.var)
    ref = plain if variant == jbn.Standard() else right(variant, old)
    deviation = np.sqrt(plain.bounds["var"])
    direction = np.where(where, rng.standard_normal(x.shape) * deviation, 0)
    direction = np.clip(direction, -LARGEST, LARGEST).astype(x.dtype)

    hidden = jnp.asarray(np.where(where, x, x.dtype.type(np.nan)))
    affine, running = jbn.Affine(*map(jnp.asarray, (scale, bias))), jbn.RunningStats(*old)
    found = everything(front, order, hidden, affine, running, variant, ct, direction, mask, epsilon)
    found = {name: np.asarray(value).astype(np.longdouble) for name, value in found.items()}

    # A variance that float32 cannot hold is no evidence: its feature keeps its statistics.
    held = ref.var < LARGEST
    expected = ref._asdict() | {
        "mean": np.where(held, ref.mean, old[0]),
        "var": np.where(held, ref.var, old[1]),
    }
    units = ref.bounds | {
        "mean": np.where(held, ref.bounds["mean"], TINY),
        "var": np.where(held, ref.bounds["var"], TINY),
    }
    if order > 1:
        assert variant == jbn.Standard()
        derivatives = reference.directional(
            wide, scale, ct, direction, epsilon=epsilon, mask=mask, order=order - 1
        )
        for name, derivative in zip(("second", "third"), derivatives):
            expected[name] = derivative
            units[name] = np.abs(np.where(where, derivative, 0)).max(tuple(range(x.ndim - 1)))
    return {
        name: _largest(value - expected[name], units[name], where) for name, value in found.items()
    }


def _largest(error, unit, where) -> float:
    # Terms below the smallest normal number may be flushed to zero.
    ratio = np.maximum(np.abs(error) - 4 * TINY, 0) / np.maximum(unit, TINY)
    if np.ndim(ratio) > 1:
        ratio = ratio[where]
    return float(np.max(np.where(np.isnan(ratio), np.inf, ratio)))


def assert_bound(found: dict[str, float], bound=BOUND) -> None:
    over = {name: error for name, error in found.items() if not error <= bound[name]}
    assert not over, ", ".join(
        f"{name} is off by {error:.2g}, allowed are {bound[name]:g}" for name, error in over.items()
    )


def main(patterns: list[str]) -> int:
    failed = 0
    for name in FAMILIES:
        if not patterns or any(pattern in name for pattern in patterns):
            x = draw(name)
            found = errors(x, order=3 if x.size < 2**18 else 1)
            over = {key: f"{error:.1e}" for key, error in found.items() if error > BOUND[key]}
            failed += bool(over)
            if over:
                print(f"{name}: {over}", flush=True)
    print(f"{failed} families are out of bounds.")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
