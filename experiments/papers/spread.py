"""The same function for many seeds, spread over all devices."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from experiments.sweep import make_mesh, over_runs


def combinations(*values: Any) -> tuple[np.ndarray, ...]:
    """Rows for `spread`: every combination of values, the last running fastest."""
    return tuple(grid.ravel() for grid in np.meshgrid(*values, indexing="ij"))


def spread(function: Callable[..., Any], *rows: Any, given: Any = ()) -> Any:
    """`function(*given, *row)` for each row of the arrays `rows`: trees of numpy arrays, stacked.

    Args:
        function: of JAX arrays; compiled once for all rows.
        rows: arrays of equal length.
        given: what all rows have in common, images for example; closed over, they would be
            compiled into the program.
    """
    mesh = make_mesh()
    length = len(rows[0])
    fill = -length % mesh.size
    filled = [np.concatenate([row, np.repeat(row[-1:], fill, axis=0)]) for row in rows]

    def on_device(given: Any, filled: Any) -> Any:
        each = over_runs(mesh.devices.flat[0].platform)
        return each(lambda row: function(*given, *row))(filled)

    sharded = jax.shard_map(
        on_device, mesh=mesh, in_specs=(P(), P("runs")), out_specs=P("runs"), check_vma=False
    )
    results = jax.device_get(jax.jit(sharded)(tuple(given), tuple(filled)))
    return jax.tree.map(lambda result: result[:length], results)
