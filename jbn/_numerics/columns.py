"""Sums of an array and its products over the batch, about a shift, and their transpose.

By XLA (`blocks`), or by a native function (`column_sums.cc`) where `make fast` has built it, which
reads each row once for both sums as the scan does, on all of XLA's threads.
"""

import ctypes
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from jbn._numerics.arrays import per_feature
from jbn._numerics.blocks import map_batch, sum_batch
from jbn._numerics.frame import Frame

Vector = Float[Array, "C"]


def sum_squares(x: Float[Array, "*batch C"], frame: Frame) -> tuple[Vector, Vector]:
    """Sums `u` and `u * u` over the batch, `u` being `x` in the units of `frame`."""
    native = _is_native(x)
    total, squares = _squares_p.bind(_rows(x), *frame) if native else _squares(x, *frame)
    return total, squares


def broadcast_line(
    slope: Vector, intercept: Vector, x: Float[Array, "*batch C"], frame: Frame, mean: Vector
) -> Float[Array, "*batch C"]:
    """Returns `slope * (u - mean) + intercept`, `u` being `x` in the units of `frame`.

    Its transpose in slope and intercept sums `ct * (u - mean)` and `ct` over the batch.
    """
    if not _is_native(x):
        return _line(slope, intercept, x, *frame, mean)
    return _line_p.bind(slope, intercept, _rows(x), *frame, mean)[0].reshape(x.shape)


def _squares(x, factor, shift):
    def terms(x):
        u = Frame(factor, shift).convert(x)
        return u, u * u

    return sum_batch(terms, x)


def _products(ct, x, factor, shift, mean):
    def terms(ct, x):
        return ct * _centred(x, factor, shift, mean), ct

    return sum_batch(terms, ct, x)


def _line(slope, intercept, x, factor, shift, mean):
    def line(coefficients, x):
        return _centred(x, factor, shift, mean) * coefficients[0] + coefficients[1]

    return map_batch(line, (slope, intercept), x)


def _centred(x, factor, shift, mean):
    # Subtracted in two steps: shift + mean, rounded to one number, would lose digits that count.
    return Frame(factor, shift).convert(x) - per_feature(mean, x)


LIBRARY = Path(__file__).with_name("column_sums.so")
TARGETS = {"jbn_squares": "Squares", "jbn_products": "Products"}


def _load() -> bool:
    """Registers the native functions; False where they are not built."""
    if not LIBRARY.exists():
        return False
    library = ctypes.cdll.LoadLibrary(str(LIBRARY))
    for target, function in TARGETS.items():
        handler = jax.ffi.pycapsule(getattr(library, function))
        jax.ffi.register_ffi_target(target, handler, platform="cpu")
    return True


BUILT = _load()


def _is_native(x: Array) -> bool:
    # A custom call is not partitioned: each device would gather all of a sharded batch for it.
    alone = jax.typeof(x).sharding.mesh.empty and jax.device_count() == 1
    return BUILT and alone and x.dtype == jnp.float32 and isinstance(math.prod(x.shape), int)


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _primitive(name: str, by_xla: Callable, like: int, results: int) -> Primitive:
    """Makes a primitive of `results` results, each shaped as the operand number `like`.

    Operands have shape (N, C) or (C,), and any mapped axes before.
    """
    primitive = Primitive(name)
    primitive.multiple_results = True

    def mapped(*operands):
        function = by_xla
        for _ in range(operands[-1].ndim - 1):
            function = jax.vmap(function)
        values = function(*operands)
        return values if isinstance(values, tuple) else (values,)

    def batch(operands, axes):
        size = next(o.shape[axis] for o, axis in zip(operands, axes) if axis is not None)
        first = [
            jnp.broadcast_to(o, (size, *o.shape)) if axis is None else jnp.moveaxis(o, axis, 0)
            for o, axis in zip(operands, axes)
        ]
        return primitive.bind(*first), (0,) * results

    primitive.def_impl(mapped)
    primitive.def_abstract_eval(lambda *operands: (operands[like],) * results)
    batching.primitive_batchers[primitive] = batch
    lower = mlir.lower_fun(mapped, multiple_results=True)
    mlir.register_lowering(primitive, lower)
    if name in TARGETS:
        native = jax.ffi.ffi_lowering(name)

        def on_cpu(context, *operands):
            # A custom call cannot be serialised.
            exported = context.module_context.lowering_parameters.for_export
            return (native if BUILT and not exported else lower)(context, *operands)

        mlir.register_lowering(primitive, on_cpu, platform="cpu")
    return primitive


_squares_p = _primitive("jbn_squares", _squares, like=1, results=2)
_products_p = _primitive("jbn_products", _products, like=2, results=2)
_line_p = _primitive("jbn_line", _line, like=2, results=1)


def _derive(primitive: Primitive, linear: int) -> None:
    """Gives `primitive`, linear in its first operands, its derivative."""

    def jvp(operands, tangents):
        values = primitive.bind(*operands)
        terms = []
        if any(type(t) is not ad.Zero for t in tangents[:linear]):
            along = map(ad.instantiate_zeros, tangents[:linear])
            terms.append(primitive.bind(*along, *operands[linear:]))
        if any(type(t) is not ad.Zero for t in tangents[linear:]):
            along = tuple(map(ad.instantiate_zeros, tangents[linear:]))
            nonlinear = partial(primitive.impl, *operands[:linear])
            terms.append(jax.jvp(nonlinear, tuple(operands[linear:]), along)[1])
        return values, [sum(each[1:], each[0]) for each in zip(*terms)]

    ad.primitive_jvps[primitive] = jvp


def _transpose_products(cts, _, *rest):
    slope, intercept = map(ad.instantiate_zeros, cts)
    return _line_p.bind(slope, intercept, *rest) + [None] * len(rest)


def _transpose_line(cts, slope, intercept, *rest):
    sums = _products_p.bind(*map(ad.instantiate_zeros, cts), *rest)
    wanted = map(ad.is_undefined_primal, (slope, intercept))
    return [s if is_wanted else None for s, is_wanted in zip(sums, wanted)] + [None] * len(rest)


_derive(_products_p, linear=1)
_derive(_line_p, linear=2)
ad.primitive_transposes[_products_p] = _transpose_products
ad.primitive_transposes[_line_p] = _transpose_line
