"""Programs of the matrix's cells: arrays and where they lie, the function, the right result."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.nnx
import jax
import numpy as np
import reference
import variant_reference
from jax import P
from jax.sharding import AxisType

import jbn
import jbn.linen
import jbn.nnx

FEATURES = 8
# Elements below and above the thresholds at which the library changes its way to sum. A shard of
# the small ones still holds more than any stack of vectors from four devices.
SHAPES = {
    ("small", 2): (256, FEATURES),
    ("small", 4): (16, 4, 4, FEATURES),
    ("large", 2): (8192, FEATURES),
    ("large", 4): (64, 8, 16, FEATURES),
}
KEY = jax.random.key(3)
# From the rows of the whole batch, so that two groups lie on each of four devices.
VARIANTS = {
    "Standard": lambda rows: jbn.Standard(),
    "Ghost": lambda rows: jbn.Ghost(rows // 8),
    "Renorm": lambda rows: jbn.Renorm(1.5, 0.5),
    "Running": lambda rows: jbn.Running(),
    "Uncentered": lambda rows: jbn.Uncentered(),
    "Detached": lambda rows: jbn.Detached(mean=False),
    "Noisy": lambda rows: jbn.Noisy(KEY),
    "Ghost of Renorm": lambda rows: jbn.Ghost(rows // 8, base=jbn.Renorm(2.0, 1.0)),
}


class Places(NamedTuple):
    """How the arrays of a cell lie on its mesh."""

    mesh: jax.sharding.Mesh
    x: P
    vector: P  # parameters and statistics
    feature: P  # a vector that lies as the features of x do
    axis_name: tuple[str, ...] | None  # of shard_map, for the rest of the batch


class Program(NamedTuple):
    """Arrays with their places, a function of them, and its right values with their units."""

    arrays: Any
    specs: Any
    run: Callable  # to values by name, and the texts of the programs compiled
    out: dict[str, P]
    right: dict[str, np.ndarray]
    units: dict[str, np.ndarray]
    where: np.ndarray  # the elements of y and dx that count


def place(cell) -> Places:
    names = ("data", "model")[: len(cell.mesh)]
    kind = AxisType.Auto if cell.axes == "Auto" else AxisType.Explicit
    devices = jax.devices()[: math.prod(cell.mesh)]
    mesh = jax.make_mesh(cell.mesh, names, axis_types=(kind,) * len(names), devices=devices)
    middle, last = [None] * (cell.rank - 2), names[-1]
    inner = ("data", last) if len(names) == 2 else (None, last)
    x, batch = {
        "batch": (P(names, *middle, None), names),
        "features": (P(None, *middle, last), None),
        "both": (P("data", *middle, last), ("data",)),
        "inner": (P(*inner, None, None), names),
    }[cell.sharded]
    feature = P(x[-1])
    vector = feature if cell.vectors == "like features" else P(None)
    return Places(mesh, x, vector, feature, batch if cell.axes == "Manual" else None)


def draw(cell):
    """x, affine, statistics, cotangent, mask, and which elements the mask lets count."""
    shape = SHAPES[cell.size, cell.rank]
    rng = np.random.default_rng(len(str(cell)))
    x = 3 + rng.uniform(1, 3, FEATURES) * rng.standard_normal(shape)
    mean, var = np.linspace(2, 4, FEATURES), np.linspace(1, 6, FEATURES)
    if cell.statistics == "far":
        mean, var = mean + 1e4, var * 1e-4
    # A layer takes one flag for each entry of the first axis, the function one for each row.
    examples = shape[:1] if cell.function in ("linen", "nnx") else shape[:-1]
    mask = {
        "none": None,
        "example": rng.random(examples) < 0.7,
        "element": rng.random(shape) < 0.6,
    }[cell.mask]
    where = np.ones(shape, bool)
    if mask is not None:
        where = np.broadcast_to(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), shape)
    ct = np.where(where, rng.standard_normal(shape), 0)
    vectors = [v.astype(np.float32) for v in (*rng.normal(1, 1, (2, FEATURES)), mean, var)]
    affine, stats = jbn.Affine(*vectors[:2]), jbn.RunningStats(*vectors[2:])
    hidden = np.where(where, x, np.nan).astype(np.float32)
    return hidden, affine, stats, ct.astype(np.float32), mask, where


def compiled(cell, places: Places, function, specs, out) -> Callable:
    """`function(arrays, axis_name)` as the cell calls it; gives the program's text too."""

    def called(arrays):
        return function(arrays, places.axis_name)

    if cell.axes == "Manual":
        mesh = {} if "set_mesh" in cell.call else {"mesh": places.mesh}
        called = jax.shard_map(called, in_specs=(specs,), out_specs=out, **mesh)

    def run(arrays):
        if cell.call.startswith("eager"):
            return called(arrays), []
        program = jax.jit(called).lower(arrays).compile()
        return program(arrays), [program.as_text()]

    return run


def _mask_spec(x: P, mask) -> P | None:
    return None if mask is None else P(*x[: mask.ndim])


def linen(x, affine, stats, *, mask, **options):
    layer = jbn.linen.BatchNorm(use_running_average=False, **options)
    variables = {"params": affine._asdict(), "batch_stats": stats._asdict()}
    y, updates = layer.apply(variables, x, mask=mask, mutable=["batch_stats"])
    return y, jbn.RunningStats(**updates["batch_stats"])


def nnx(x, affine, stats, *, mask, variant, **options):
    layer = jbn.nnx.BatchNorm(len(affine.scale), rngs=flax.nnx.Rngs(0), **options)
    for name, value in (affine._asdict() | stats._asdict()).items():
        getattr(layer, name).set_value(value)
    y = layer(x, use_running_average=False, mask=mask, variant=variant)
    return y, jbn.RunningStats(layer.mean.get_value(), layer.var.get_value())


LAYERS = {"batch_norm": jbn.batch_norm, "linen": linen, "nnx": nnx}


def layer_program(cell, places: Places) -> Program:
    """y, new statistics and all gradients of a layer, or of the function."""
    x, affine, stats, ct, mask, where = draw(cell)
    layer, variant = LAYERS[cell.function], VARIANTS[cell.variant](len(x))

    def function(arrays, axis_name):
        x, affine, stats, ct, mask = arrays
        options = {"mask": mask, "variant": variant, "axis_name": axis_name, "momentum": 0.0}

        def value(x, affine):
            return layer(x, affine, stats, **options)

        # A cotangent of y: eagerly JAX cannot begin from a scalar on Explicit axes.
        y, pullback, new = jax.vjp(value, x, affine, has_aux=True)
        dx, daffine = pullback(ct)
        return {"y": y, **new._asdict(), "dx": dx, "dscale": daffine.scale, "dbias": daffine.bias}

    vector = places.vector
    out = {"y": places.x, "mean": vector, "var": vector}
    out |= {"dx": places.x, "dscale": vector, "dbias": vector}
    specs = (
        places.x,
        jbn.Affine(vector, vector),
        jbn.RunningStats(vector, vector),
        places.x,
        _mask_spec(places.x, mask),
    )
    ref = variant_reference.batch_norm(variant, x, affine, stats, ct, mask=mask)
    names = out
    if cell.variant == "Noisy" and cell.axes == "Manual" and places.mesh.size > 1:
        names = ("mean", "var")  # in shard_map each device draws noise of its own
    right = {name: getattr(ref, name) for name in names}
    run = compiled(cell, places, function, specs, out)
    return Program((x, affine, stats, ct, mask), specs, run, out, right, ref.bounds, where)


def moments_program(cell, places: Places) -> Program:
    """`batch_moments`, on several devices with `sync_moments`, and the gradient of x."""
    x, affine, stats, _, mask, where = draw(cell)

    def function(arrays, axis_name):
        x, weights, mask = arrays

        def value(x):
            moments = jbn.batch_moments(x, mask=mask)
            if axis_name:
                moments = jbn.sync_moments(moments, axis_name)
            mean, var, size = moments
            return (mean, var), size

        (mean, var), pullback, size = jax.vjp(value, x, has_aux=True)
        (dx,) = pullback(weights)
        return {"mean": mean, "var": var, "size": size, "dx": dx}

    weights = (affine.scale, stats.var)
    f = places.feature
    out = {"mean": f, "var": f, "size": f, "dx": places.x}
    specs = (places.x, (f, f), _mask_spec(places.x, mask))
    ref = reference.batch_norm(x, affine.scale, affine.bias, np.zeros_like(x), mask=mask)
    centred = np.where(where, x - ref.mean, 0)
    n = np.maximum(ref.size, 1)
    right = {"mean": ref.mean, "var": ref.var, "size": ref.size}
    right["dx"] = where * (weights[0] + 2 * weights[1] * centred) / n
    largest = np.abs(centred).max(tuple(range(x.ndim - 1)))
    units = ref.bounds | {"size": n, "dx": (np.abs(weights[0]) + 2 * weights[1] * largest) / n}
    run = compiled(cell, places, function, specs, out)
    return Program((x, weights, mask), specs, run, out, right, units, where)


def pool_program(cell, places: Places) -> Program:
    """`pool_moments` of stacked parts, some of them empty, and the gradients of the parts."""
    mean, affine, stats, ct, _, where = draw(cell)
    var = np.abs(ct) + np.float32(0.1)
    sizes = np.random.default_rng(5).integers(0, 4, mean.shape).astype(np.float32)
    weights = (affine.scale, stats.var)

    def function(arrays, axis_name):
        mean, var, sizes, weights = arrays

        def value(mean, var):
            pooled = jbn.pool_moments(jbn.Moments(mean, var, sizes))
            if axis_name:
                pooled = jbn.sync_moments(pooled, axis_name)
            mean, var, size = pooled
            return (mean, var), size

        (mean, var), pullback, size = jax.vjp(value, mean, var, has_aux=True)
        dx, dvar = pullback(weights)
        return {"mean": mean, "var": var, "size": size, "dx": dx, "dvar": dvar}

    f = places.feature
    out = {"mean": f, "var": f, "size": f, "dx": places.x, "dvar": places.x}
    specs = (places.x, places.x, places.x, (f, f))
    size = sizes.astype(np.longdouble).sum(0)
    share = sizes / size
    pooled = (share * mean).sum(0)
    total = (share * (var + (mean - pooled) ** 2)).sum(0)
    right = {"mean": pooled, "var": total, "size": size, "dvar": share * weights[1]}
    right["dx"] = share * (weights[0] + 2 * weights[1] * (mean - pooled))
    units = {name: np.abs(value).max(0) for name, value in right.items()}
    units["mean"] = np.abs(pooled) + np.sqrt(total)
    run = compiled(cell, places, function, specs, out)
    return Program((mean, var, sizes, weights), specs, run, out, right, units, where)


def recalibrate_program(cell, places: Places) -> Program:
    """`recalibrate` with two batches, the halves of one."""
    x, affine, stats, _, mask, where = draw(cell)
    halves = [None, None] if mask is None else np.split(mask, 2)
    batches = list(zip(np.split(x, 2), halves))
    vector, feature = places.vector, places.feature

    def function(batch, axis_name):
        moments = jbn.batch_moments(batch[0], mask=batch[1])
        return jbn.sync_moments(moments, axis_name) if axis_name else moments

    def measure(batch):
        return function(batch, places.axis_name)

    one = (places.x, _mask_spec(places.x, mask))
    if cell.axes == "Manual":
        measure = jax.shard_map(measure, mesh=places.mesh, in_specs=(one,), out_specs=feature)

    def run(arrays):
        stats, batches = arrays
        new, _ = jbn.recalibrate(measure, stats, batches)
        text = jax.jit(measure).lower(batches[0]).compile().as_text()
        return new._asdict(), [text]

    ref = reference.batch_norm(x, affine.scale, affine.bias, np.zeros_like(x), mask=mask)
    right = {"mean": ref.mean, "var": ref.var}
    specs = (jbn.RunningStats(vector, vector), [one, one])
    out = {"mean": vector, "var": vector}
    return Program((stats, batches), specs, run, out, right, ref.bounds, where)


def program(cell, places: Places) -> Program:
    special = {
        "batch_moments": moments_program,
        "pool_moments": pool_program,
        "recalibrate": recalibrate_program,
    }
    return special.get(cell.function, layer_program)(cell, places)
