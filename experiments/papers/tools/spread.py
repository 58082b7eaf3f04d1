"""The same function for many seeds, spread over all devices."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from experiments.study.sweep import make_mesh, over_runs
from experiments.system.devices import cores

_Name = TypeVar("_Name")


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
    return spread_each({"": function}, *rows, given=given)[""]


def spread_each(
    functions: Mapping[_Name, Callable[..., Any]], *rows: Any, given: Any = ()
) -> dict[_Name, Any]:
    """`spread` of each of `functions`, which are compiled side by side."""
    mesh = make_mesh()
    length = len(rows[0])
    fill = -length % mesh.size
    filled = [np.concatenate([row, np.repeat(row[-1:], fill, axis=0)]) for row in rows]
    arguments = tuple(given), tuple(filled)

    def lower(function: Callable[..., Any]) -> Any:
        def on_device(given: Any, filled: Any) -> Any:
            each = over_runs(mesh.devices.flat[0].platform)
            return each(lambda row: function(*given, *row))(filled)

        sharded = jax.shard_map(
            on_device, mesh=mesh, in_specs=(P(), P("runs")), out_specs=P("runs"), check_vma=False
        )
        return jax.jit(sharded).lower(*arguments)

    lowered = [lower(function) for function in functions.values()]
    with ThreadPoolExecutor(cores()) as pool:
        programs = pool.map(lambda program: program.compile(), lowered)
    results = [jax.device_get(program(*arguments)) for program in programs]
    return dict(zip(functions, jax.tree.map(lambda result: result[:length], results)))
