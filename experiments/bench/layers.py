"""Time of a training step of layers, with and without the loop that may sweep again.

Each norm sweeps over its batch again where its sums were not enough. On ordinary data none does,
but the host of a GPU waits for every norm's answer. Without the loop a norm takes one sweep always,
or two; neither is right on every datum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import jbn
from experiments.bench.measure import (
    Clock,
    compare,
    device_clock,
    host_clock,
    loop_on_device,
    measure_rounds,
)
from experiments.bench.output import Report, spread
from experiments.bench.programs import EPSILON, network
from experiments.bench.rivals import BASELINE, Apply, JaxRival, find_rivals
from experiments.system.progress import announce

JBN = "jbn"
Loop = Callable[[Any, Callable[[Any], Any], Any], Any]


def measure(
    dtypes: Sequence[str] = (), *, width: int, batch: int, layers: int, rounds: int, seed: int
) -> Report:
    """Times a step of Dense, norm, ReLU, `layers` times over, at each type."""
    on_cpu = jax.default_backend() == "cpu"
    dtypes = dtypes or (("float32",) if on_cpu else ("float32", "bfloat16"))
    loops: dict[str, Loop] = {
        JBN: jax.lax.while_loop,
        # On a CPU all sweeps are the loop's, elsewhere the first comes before it.
        f"{JBN}, one sweep always": _once if on_cpu else _never,
        f"{JBN}, two sweeps always": _twice if on_cpu else _once,
    }
    (flax,) = (
        r.apply for r in find_rivals().rivals if isinstance(r, JaxRival) and r.name == BASELINE
    )
    tables = []
    for dtype in dtypes:
        announce(f"{layers} layers, {dtype}")
        arguments = _arguments(dtype, width, batch, layers, np.random.default_rng(seed))
        clocks = {BASELINE: _clock(flax, arguments)}
        for name, loop in loops.items():
            with mock.patch("jax.lax.while_loop", loop):
                clocks[name] = _clock(partial(_jbn, _Traced(name)), arguments)
        timings = measure_rounds(clocks, rounds=rounds, seed=seed)
        tables.append(compare(timings, BASELINE).assign(dtype=dtype))
    data = pd.concat(tables, ignore_index=True)
    notes = [
        f"{layers} x (Dense, norm, ReLU), {width} wide, batch {batch}; loss and all gradients. "
        f"{'A call from Python' if on_cpu else 'Calls on end in one program, device time'}; each "
        f"once per round in random order, {rounds} rounds.",
        f"Times faster: seconds of {BASELINE} by those of the row, per round; median and "
        "quartiles.",
    ]
    return Report(
        "layers", "A step of layers", data, {"loss and all gradients": table(data)}, notes
    )


def table(data: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows as they are read."""
    first = data[data["clock"] == data["clock"].iloc[0]]
    columns: dict[str, Any] = {
        "type": list(first["dtype"]),
        "": list(first["name"]),
        "ms": [f"{1000 * seconds:.3g}" for seconds in first["seconds"]],
    }
    for clock in data["clock"].unique():
        ratios = data.query("clock == @clock")[["ratio", "ratio_q25", "ratio_q75"]]
        columns[f"times faster, {clock} time"] = [spread(*row) for row in ratios.to_numpy()]
    return pd.DataFrame(columns)


def _arguments(dtype: str, width: int, batch: int, layers: int, rng: np.random.Generator) -> tuple:
    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape, np.float32))

    params = [(normal(width, width) / width**0.5, jbn.init(width)[0]) for _ in range(layers)]
    return params, [jbn.init(width)[1]] * layers, normal(batch, width).astype(dtype)


@dataclass(frozen=True)
class _Traced(jbn.Standard):
    """`Standard` that JAX traces anew for each name."""

    name: str


def _jbn(variant: _Traced, x, affine, stats, *, epsilon):
    return jbn.batch_norm(x, affine, stats, variant=variant, epsilon=epsilon)


def _clock(norm: Apply, arguments: tuple) -> Clock:
    loss = network(partial(norm, epsilon=EPSILON), lambda x, kernel: x @ kernel.astype(x.dtype))
    step = jax.value_and_grad(loss, has_aux=True)
    jitted = jax.jit(step)

    def call(arguments: tuple) -> Any:
        return jax.block_until_ready(jitted(*arguments))

    if jax.default_backend() == "cpu":
        return host_clock(call, [arguments])
    return device_clock(call, [arguments], partial(loop_on_device, step))


def _never(_: Any, body: Callable[[Any], Any], carry: Any) -> Any:
    return carry


def _once(_: Any, body: Callable[[Any], Any], carry: Any) -> Any:
    return body(carry)


def _twice(_: Any, body: Callable[[Any], Any], carry: Any) -> Any:
    return body(body(carry))
