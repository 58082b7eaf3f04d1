"""Cost of batch norm when its running mean is off, and it sweeps over the batch again."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import pandas as pd

import jbn
from experiments.bench.measure import as_dear, compare, host_clock, measure_rounds
from experiments.bench.output import Report, spread
from experiments.system.progress import announce

SHAPES = ((128, 512), (1024, 1024), (8192, 1024), (128, 16, 16, 256))
POOL = 3
ORDINARY = "running mean within 0.1 deviations"
MODES = {"forward": False, "all gradients": True}


def measure(shapes: Sequence[tuple[int, ...]] = (), *, rounds: int, seed: int) -> Report:
    """Times a training step's batch norm on the same data with better and worse statistics."""
    tables = []
    for shape in shapes or SHAPES:
        written = "x".join(map(str, shape))
        cases = _cases(shape, np.random.default_rng(seed))
        for mode, gradients in MODES.items():
            announce(f"{written}, {mode}")
            call = partial(_finish, jax.jit(_step(gradients)))
            clocks = {name: host_clock(call, pool) for name, pool in cases.items()}
            compared = compare(measure_rounds(clocks, rounds=rounds, seed=seed), ORDINARY)
            tables.append(compared.assign(shape=written, mode=mode))
    data = as_dear(pd.concat(tables, ignore_index=True))
    tables = {mode: table(data.query("mode == @mode")) for mode in MODES}
    return Report("sweeps", "When the running mean is off", data, tables, _notes(rounds))


def _cases(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, list[tuple]]:
    features = shape[-1]
    normal = [rng.standard_normal(shape, np.float32) for _ in range(POOL)]
    cotangent = rng.standard_normal(shape, np.float32)
    affine, cold = jbn.init(features)
    good = cold._replace(mean=cold.mean + 10.1)
    constant = [x + 10 for x in normal]
    for x in constant:
        x[..., 0] = 12345.678

    def pool(xs, stats):
        return [tuple(map(jax.device_put, (x, affine, stats, cotangent))) for x in xs]

    far = [x + 10 for x in normal]
    return {
        ORDINARY: pool(far, good),
        "cold: 10 deviations off": pool(far, cold),
        "one feature constant, its running mean off": pool(constant, good),
    }


def _step(gradients: bool) -> Any:
    def forward(x, affine, stats):
        return jbn.batch_norm(x, affine, stats)

    def both(x, affine, stats, cotangent):
        if not gradients:
            return forward(x, affine, stats)
        y, pullback, new = jax.vjp(
            lambda x, affine: forward(x, affine, stats), x, affine, has_aux=True
        )
        return y, new, pullback(cotangent)

    return both


def _finish(step: Any, inputs: tuple) -> Any:
    return jax.block_until_ready(step(*inputs))


def table(data: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of one mode as they are read."""
    wall = data[data["clock"] == "wall"]
    columns: dict[str, Any] = {
        "shape": list(wall["shape"]),
        "": list(wall["name"]),
        "ms": [f"{1000 * seconds:.3g}" for seconds in wall["seconds"]],
    }
    for clock in data["clock"].unique():
        ratios = data.query("clock == @clock")[["times", "times_q25", "times_q75"]]
        columns[f"times slower, {clock} time"] = [spread(*row) for row in ratios.to_numpy()]
    return pd.DataFrame(columns)


def _notes(rounds: int) -> list[str]:
    return [
        "The same N(10, 1) data (and one feature of 12345.678) and the same program: only the "
        f"running statistics differ. Each case once per round in random order, {rounds} rounds, "
        f"over {POOL} inputs in turn; wall and CPU time of one call from Python, finished.",
        f"Times slower: seconds of the row by those of '{ORDINARY}', per round; median and "
        "quartiles.",
        "A running mean that is off is so for some steps: at momentum 0.9 a cold start at 10 "
        "deviations is within one after 22, at 0.99 after 230.",
    ]
