"""Arrays of a layer's size that wait between the forward and the backward pass.

Asked of the compiler: nothing runs. Layers of Dense, batch norm, ReLU differ in their batch norm
alone; a Dense needs no bias before it, so they are also counted without.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pandas as pd

import jbn
from experiments.bench.output import Report, absences
from experiments.bench.programs import EPSILON, network
from experiments.bench.rivals import Apply, JaxRival, find_rivals
from experiments.system.progress import announce

COLUMNS = {False: "Dense without bias", True: "Dense with bias"}


def measure(*, width: int, batch: int, layers: int) -> Report:
    """Counts arrays per layer for every library in JAX that is here, and without batch norm."""
    field = find_rivals()
    norms: dict[str, Apply] = {
        rival.name: rival.apply for rival in field.rivals if isinstance(rival, JaxRival)
    }
    norms["no batch norm"] = lambda x, affine, stats, *, epsilon: (x, stats)
    rows = []
    for name, norm in norms.items():
        announce(name)
        for bias in COLUMNS:
            held = arrays_per_layer(norm, width=width, batch=batch, layers=layers, bias=bias)
            rows.append((name, bias, held))
    data = pd.DataFrame(rows, columns=["name", "dense_bias", "arrays_per_layer"])
    wide = data.assign(
        cell=data["arrays_per_layer"].map("{:.2f}".format),
        column=data["dense_bias"].map(COLUMNS.get),
    ).pivot(index="name", columns="column", values="cell")
    shown = wide.loc[list(norms), list(COLUMNS.values())].rename_axis("").reset_index()
    size = batch * width * 4 / 2**20
    notes = [
        f"{layers} x (Dense, batch norm, ReLU), {width} wide, batch {batch}, float32. Temporary "
        "memory of the compiled loss and gradients (XLA's own analysis), divided by the size of "
        f"one activation ({size:g} MiB) and by {layers}.",
        "PyTorch is not counted: it has no such analysis.",
        *absences(field.absent),
    ]
    title = "Arrays held between the passes, per layer"
    return Report("memory", "Memory", data, {title: shown.rename_axis(None, axis=1)}, notes)


def arrays_per_layer(norm: Apply, *, width: int, batch: int, layers: int, bias: bool) -> float:
    """Returns the temporary memory of loss and gradients, in activations per layer."""
    affine, stats = jax.eval_shape(lambda: jbn.init(width))
    matrix = jax.ShapeDtypeStruct((width, width), jnp.float32)
    x = jax.ShapeDtypeStruct((batch, width), jnp.float32)
    params = [((matrix, affine.bias if bias else None), affine)] * layers
    loss = network(partial(norm, epsilon=EPSILON), _dense)
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    memory: Any = step.lower(params, [stats] * layers, x).compile().memory_analysis()
    return memory.temp_size_in_bytes / (x.size * x.dtype.itemsize) / layers


def _dense(x: jax.Array, weights: tuple[jax.Array, jax.Array | None]) -> jax.Array:
    kernel, bias = weights
    return x @ kernel if bias is None else x @ kernel + bias[None]
