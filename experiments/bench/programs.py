"""Programs with a batch norm in them, to be compiled: alone or in layers, on one device or four."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.bench.rivals import Apply, Mode
from jbn import Affine, RunningStats

Program = Literal["norm", "dense", "conv"]
Placement = Literal["one", "jit", "axis_name"]

AXIS = "batch"
EPSILON = 1e-5


class Cell(NamedTuple):
    """One program, whatever its batch norm."""

    program: Program
    placement: Placement
    dtype: str
    """Of x and of what is computed; parameters and statistics are float32."""
    mode: Mode

    @property
    def devices(self) -> int:
        """The number of devices that it runs on."""
        return 1 if self.placement == "one" else 4


class Scale(NamedTuple):
    """The size of programs."""

    x_bytes: int
    """What each device has of x."""
    layers: int
    """How many of Dense or Conv, norm and ReLU."""


def build(
    cell: Cell, norm: Apply, devices: Sequence[Any], scale: Scale
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Makes a function to jit, and arguments of a shape, a type and a place but no numbers.

    Args:
        cell: What to build.
        norm: The batch norm in it.
        devices: As many as the cell needs.
        scale: How large.
    """
    mesh = Mesh(np.array(devices), (AXIS,))
    inner, features = ((32, 32), 128) if cell.program == "conv" else ((), 1024)
    dtype = jnp.dtype(cell.dtype)
    rows = len(devices) * scale.x_bytes // (math.prod(inner) * features * dtype.itemsize)

    def placed(shape: tuple[int, ...], dtype: Any, *axes: str) -> Any:
        spec = P(*axes)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    x = placed((rows, *inner, features), dtype, AXIS)
    vector = placed((features,), jnp.float32)
    affine, stats = Affine(vector, vector), RunningStats(vector, vector)
    axis_name = AXIS if cell.placement == "axis_name" else None
    norm = partial(norm, epsilon=EPSILON, axis_name=axis_name)
    if cell.program == "norm":
        function, arguments = partial(_alone, norm, cell.mode), (x, affine, stats, x)
        inputs, outputs = (P(AXIS), P(), P(), P(AXIS)), _ALONE_OUTPUTS[cell.mode]
    else:
        loss = network(norm, _conv if inner else _dense, axis_name)
        backward = jax.value_and_grad(loss, has_aux=True)
        function = loss if cell.mode == "forward" else backward
        kernel = placed(((3, 3) if inner else ()) + (features, features), jnp.float32)
        arguments = ([(kernel, affine)] * scale.layers, [stats] * scale.layers, x)
        inputs, outputs = (P(), P(), P(AXIS)), P()
    if axis_name is not None:
        function = jax.shard_map(function, mesh=mesh, in_specs=inputs, out_specs=outputs)
    return function, arguments


def network(
    norm: Apply, linear: Callable[[jax.Array, Any], jax.Array], axis_name: str | None = None
) -> Callable[..., tuple[jax.Array, list[RunningStats]]]:
    """Makes layers of `linear`, norm and ReLU: a function of parameters, old statistics and x.

    It gives the mean square of what comes out, over the devices of `axis_name` too, and the new
    statistics. The parameters are `(weights, affine)` for each layer.
    """

    def loss(params, stats, x):
        updated = []
        for (weights, affine), old in zip(params, stats):
            x, new = norm(linear(x, weights), affine, old)
            x = jax.nn.relu(x)
            updated.append(new)
        loss = jnp.mean(jnp.square(x.astype(jnp.float32)))
        return loss if axis_name is None else lax.pmean(loss, axis_name), updated

    return loss


_ALONE_OUTPUTS: dict[Mode, Any] = {
    "forward": (P(AXIS), P()),
    "all gradients": (P(AXIS), P(), (P(AXIS), P())),
}


def _alone(norm: Apply, mode: Mode, x, affine, stats, cotangent):
    if mode == "forward":
        return norm(x, affine, stats)
    y, pullback, new = jax.vjp(lambda *inputs: norm(*inputs, stats), x, affine, has_aux=True)
    return y, new, pullback(cotangent)


def _dense(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel.astype(x.dtype)


def _conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    names = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel.astype(x.dtype), (1, 1), "SAME", dimension_numbers=names
    )
