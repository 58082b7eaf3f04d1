"""Sums over the batch as a primitive: by XLA here, and natively where `make fast` has built it."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from numpy.testing import assert_allclose

import jbn
from jbn._numerics import columns
from jbn._numerics.frame import Frame

# Odd numbers of rows; several parts of a batch; several tiles of features.
SHAPES = [(5, 3), (7, 3, 11, 4), (4111, 40), (19, 2500)]


@pytest.fixture(autouse=True, params=["native", "XLA"])
def built(request, monkeypatch):
    """Has the sums be one primitive; natively where that is built."""
    monkeypatch.setattr(columns, "_is_native", lambda x: True)
    if request.param == "XLA":
        monkeypatch.setattr(columns, "BUILT", False)
    elif not columns.BUILT:
        pytest.skip("not built: make fast")


def test_it_is_used_where_it_is_built():
    assert columns.BUILT in (False, columns.LIBRARY.exists())


def draw(shape, seed=0):
    rng = np.random.default_rng(seed)
    x, ct, dx = (rng.standard_normal(shape).astype(np.float32) for _ in range(3))
    slope, intercept, shift, mean = rng.standard_normal((4, shape[-1])).astype(np.float32)
    factor = np.exp2(rng.integers(-3, 4, shape[-1])).astype(np.float32)
    return 3 * x + 1, ct, dx, slope, intercept, Frame(factor, shift), mean


def wide(*arrays):
    return [np.asarray(array, np.float64) for array in arrays]


def rows(array):
    return array.reshape(-1, array.shape[-1])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_of_squares_equal_those_in_double_precision(shape):
    x, *_, frame, _ = draw(shape)
    total, squares = jax.jit(columns.sum_squares)(x, frame)
    x, factor, shift = wide(rows(x), *frame)
    u = x * factor - shift
    scale = np.abs(u).sum(0)
    assert_allclose(total / scale, u.sum(0) / scale, atol=2e-7)
    assert_allclose(squares, np.square(u).sum(0), rtol=4e-7)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_transpose_equals_sums_in_double_precision(shape):
    x, ct, _, slope, intercept, frame, mean = draw(shape)
    line = partial(columns.broadcast_line, x=x, frame=frame, mean=mean)
    y, pullback = jax.vjp(line, slope, intercept)
    products, total = jax.jit(pullback)(ct)
    assert y.shape == shape
    x, ct, factor, shift, mean, slope, intercept = wide(
        rows(x), rows(ct), *frame, mean, slope, intercept
    )
    centred = x * factor - shift - mean
    assert_allclose(rows(y), slope * centred + intercept, rtol=1e-5, atol=1e-5)
    for found, terms in ((products, ct * centred), (total, ct)):
        scale = np.abs(terms).sum(0)
        assert_allclose(found / scale, terms.sum(0) / scale, atol=4e-7)


def by_hand(slope, intercept, x, frame, mean):
    """`broadcast_line` as any JAX code."""
    return (x * frame.factor[None] - frame.shift[None] - mean[None]) * slope[None] + intercept[None]


def orders(broadcast_line, operands, ct, dx):
    """The gradient of a curved function of the line in all operands; its derivative in x in both
    modes; its Hessian in the slope."""

    def loss(slope, intercept, x, frame, mean):
        return jnp.sum(jnp.sin(broadcast_line(slope, intercept, x, frame, mean)) * ct)

    everything = jax.grad(loss, (0, 1, 2, 3, 4))

    def of_x(x):
        return everything(*operands[:2], x, *operands[3:])

    return {
        "gradient": everything(*operands),
        "forward over reverse": jax.jvp(of_x, (operands[2],), (dx,))[1],
        "reverse over reverse": jax.grad(lambda x: jnp.sum(of_x(x)[2] * dx))(operands[2]),
        "Hessian": jax.hessian(loss)(*operands),
    }


def test_every_order_and_mode_of_derivatives():
    x, ct, dx, *operands, frame, mean = draw((9, 3))
    operands = (*operands, jnp.asarray(x), jax.tree.map(jnp.asarray, frame), jnp.asarray(mean))
    found = jax.jit(lambda: orders(columns.broadcast_line, operands, ct, dx))()
    expected = jax.jit(lambda: orders(by_hand, operands, ct, dx))()
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-4)


def test_a_direction_in_one_operand_alone():
    x, ct, _, slope, intercept, frame, mean = draw((9, 3))
    for at, operand in enumerate((slope, intercept)):

        def function(operand, at=at):
            operands = [slope, intercept]
            operands[at] = operand
            return columns.broadcast_line(*operands, x, frame, mean)

        pullback = jax.vjp(function, operand)[1]
        _, along = jax.jvp(function, (operand,), (jnp.ones_like(operand),))
        assert_allclose(jnp.sum(along * ct, 0), pullback(ct)[0], rtol=1e-5, atol=1e-5)


def test_vmap_over_some_operands_equals_a_loop():
    draws = [draw((9, 3), seed) for seed in range(3)]
    x, ct, _, slope, intercept, frame, mean = jax.tree.map(lambda *each: jnp.stack(each), *draws)

    def pullback(x, ct, slope, intercept, frame, mean):
        def loss(slope, x):
            y = columns.broadcast_line(slope, intercept, x, frame, mean)
            return jnp.sum(jnp.sin(y) * ct)

        return jax.grad(loss, (0, 1))(slope, x), columns.sum_squares(x, frame)

    every = (x, ct, slope, intercept, frame, mean)
    mapped = [(0,) * 6, (0, None, None, None, None, None), (None, 0, None, None, 0, None)]
    for axes in mapped:
        args = [
            jax.tree.map(lambda a, axis=axis: a if axis == 0 else a[0], arg)
            for arg, axis in zip(every, axes)
        ]
        found = jax.jit(jax.vmap(pullback, in_axes=axes))(*args)
        for i in range(3):
            one = [
                jax.tree.map(lambda a, i=i, axis=axis: a[i] if axis == 0 else a, arg)
                for arg, axis in zip(args, axes)
            ]
            each = jax.tree.map(lambda leaf, i=i: leaf[i], found)
            chex.assert_trees_all_close(each, pullback(*one), rtol=1e-5, atol=1e-4)


def test_what_is_not_finite_comes_through():
    x, *_, frame, _ = draw((40, 3))
    x[7] = np.inf, np.nan, 3e38
    total, squares = jax.jit(columns.sum_squares)(x, Frame(jnp.ones(3), frame.shift))
    assert jnp.isinf(total[0])
    assert jnp.isnan(squares[1])
    assert jnp.isinf(squares[2])


def test_an_exported_program_holds_no_custom_call():
    x, *_, frame, _ = draw((40, 3))
    program = export.export(jax.jit(columns.sum_squares), platforms=["cpu", "cuda"])(x, frame)
    assert "stablehlo.custom_call" not in program.mlir_module()
    assert_allclose(program.call(x, frame)[1], columns.sum_squares(x, frame)[1], rtol=1e-6)


def test_arrays_that_may_lie_on_several_devices_are_xlas(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(columns, "BUILT", True)
    x = jnp.ones((64, 4))
    assert jax.device_count() > 1
    program = jax.make_jaxpr(lambda x: jbn.batch_norm(x, *jbn.init(4))[0])(x)
    assert "jbn_" not in str(program)
