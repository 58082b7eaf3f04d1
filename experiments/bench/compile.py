"""CPU time to compile a training step of a ResNet, with jbn's batch norm and with Flax's.

The network is ResNet-18 at a quarter of its width, in Flax: 20 batch norms in 21 layers. Every
measurement is a process of its own, in which nothing has been compiled before. The program of one
norm is counted beside it.
"""

import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pandas as pd

import jbn.linen
from experiments.bench.measure import as_dear, compare, measure_rounds
from experiments.bench.output import Report, spread
from experiments.system.progress import announce

BASELINE = "flax.linen"
NORMS: dict[str, Callable[..., nn.Module]] = {
    "jbn.linen": jbn.linen.BatchNorm,
    BASELINE: nn.BatchNorm,
}
NO_NORM = "no norm"
IMAGES = (8, 64, 64, 3)
CLASSES = 10
ONE = (8, 4, 4, 64)  # what a norm of the network's third stage is given


class ResNet18(nn.Module):
    """He et al. 2016 (arXiv:1512.03385), with `width` features in the first stage, not 64."""

    norm: Callable[[jax.Array], jax.Array]
    width: int = 16

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.width, (7, 7), (2, 2), use_bias=False)(x)
        x = nn.max_pool(nn.relu(self.norm(x)), (3, 3), (2, 2), "SAME")
        for stage in range(4):
            for block in range(2):
                strides = (2, 2) if stage and not block else (1, 1)
                x = self._block(x, self.width * 2**stage, strides)
        return nn.Dense(CLASSES)(x.mean((1, 2)))

    def _block(self, x, features, strides):
        y = nn.Conv(features, (3, 3), strides, use_bias=False)(x)
        y = nn.Conv(features, (3, 3), use_bias=False)(nn.relu(self.norm(y)))
        y = self.norm(y)
        if x.shape != y.shape:
            x = self.norm(nn.Conv(features, (1, 1), strides, use_bias=False)(x))
        return nn.relu(x + y)


def measure(*, rounds: int, seed: int) -> Report:
    """Compiles the step with each norm in a process of its own, once in each round."""
    clocks = {name: partial(_in_new_process, name) for name in (*NORMS, NO_NORM)}
    announce(f"{rounds} rounds of {len(clocks)} processes")
    times = as_dear(compare(measure_rounds(clocks, rounds=rounds, seed=seed), BASELINE))
    sizes = program_sizes()
    notes = [
        f"ResNet-18, 16 features wide at first, {IMAGES[0]} images of {IMAGES[1]} by {IMAGES[2]}; "
        "one training step with SGD. CPU time of all threads in a process that compiles nothing "
        f"else; {rounds} processes each, in random order.",
        f"Times as dear: seconds of the row by those of {BASELINE}, per round; median and "
        "quartiles.",
        f"One norm: y, the new statistics and all gradients for x of {ONE}, each function of the "
        "program counted once; kernels are the fusions that XLA compiles for this machine.",
    ]
    data = times.merge(sizes, on="name", how="left")
    tables = {"CPU time": table(times), "One norm": sizes.rename(columns={"name": ""})}
    return Report("compile", "Compilation", data, tables, notes)


def table(data: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows as they are read: each part of the work beside the others."""
    columns: dict[str, Any] = {"": list(data["name"].unique())}
    for part in data["clock"].unique():
        rows = data.query("clock == @part")
        columns[f"{part}, s"] = [f"{seconds:.2f}" for seconds in rows["seconds"]]
        ratios = rows[["times", "times_q25", "times_q75"]].to_numpy()
        columns[f"{part}, times as dear"] = [spread(*row) for row in ratios]
    return pd.DataFrame(columns)


def program_sizes() -> pd.DataFrame:
    """Counts what is lowered and what is compiled of one norm, forward and backward."""
    x = jax.ShapeDtypeStruct(ONE, jnp.float32)
    rows = []
    for name, make in NORMS.items():
        norm = make(use_running_average=False)
        variables = jax.eval_shape(norm.init, jax.random.key(0), x)

        def step(params, statistics, x, ct, norm=norm):
            def apply(params, x):
                variables = {"params": params, "batch_stats": statistics}
                return norm.apply(variables, x, mutable=["batch_stats"])

            y, pullback, new = jax.vjp(apply, params, x, has_aux=True)
            return y, new, pullback(ct)

        lowered = jax.jit(step).lower(variables["params"], variables["batch_stats"], x, x)
        compiled = lowered.compile().as_text() or ""
        rows.append(
            {
                "name": name,
                "operations, lowered": len(re.findall(r"= \"?stablehlo\.", lowered.as_text())),
                "instructions, compiled": len(re.findall(r"^ +(?:ROOT )?%", compiled, re.M)),
                "kernels": compiled.count(" fusion("),
            }
        )
    return pd.DataFrame(rows)


def _in_new_process(name: str) -> dict[str, float]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(compile_step, name).result()


def compile_step(name: str) -> dict[str, float]:
    """Returns the CPU seconds to trace and lower the step with that norm, and to compile it."""
    step, arguments = _step(name)
    start = time.process_time()
    lowered = jax.jit(step).lower(*arguments)
    middle = time.process_time()
    lowered.compile()
    end = time.process_time()
    return {"lowering": middle - start, "compiling": end - middle, "both": end - start}


def _step(name: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    def norm(x):
        if name == NO_NORM:
            return x
        return NORMS[name](use_running_average=False)(x)

    model, optimizer = ResNet18(norm), optax.sgd(0.1, momentum=0.9)
    images = jax.ShapeDtypeStruct(IMAGES, jnp.float32)
    labels = jax.ShapeDtypeStruct(IMAGES[:1], jnp.int32)
    variables = dict(jax.eval_shape(model.init, jax.random.key(0), images))
    params = variables.pop("params")
    state = jax.eval_shape(optimizer.init, params)

    def step(params, variables, state, images, labels):
        def loss(params):
            logits, new = model.apply(
                {"params": params, **variables}, images, mutable=["batch_stats"]
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new

        gradients, new = jax.grad(loss, has_aux=True)(params)
        updates, state_ = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), new, state_

    return step, (params, variables, state, images, labels)
