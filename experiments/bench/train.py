"""Speed of whole experiments: steps times runs per second, each contender as it is used.

This project's runner trains all runs at once, on every core, and measures as it goes. The loops
that it stands beside train one run after the other. All know how good they are on the test set, as
often as each other. Each contender lives in a process of its own, since how XLA divides the cores
is settled once per process; the others wait.
"""

# The rivals need not be here.
# pyright: reportMissingImports=false

import itertools
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache, partial
from importlib.util import find_spec
from multiprocessing import get_context
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import pandas as pd

from experiments.bench.measure import compare, measure_rounds
from experiments.bench.output import Report, absences, spread
from experiments.bench.work import CNN, Work, batches_of, cnn, data_of, scaled
from experiments.study.examples import Examples
from experiments.study.train import Run, RunState
from experiments.system.devices import cores, use_all_cores
from experiments.system.progress import announce

LEARNING_RATE = 0.1
RUNNER, FLAX, TORCH = "jbn's runner", "Flax loop", "PyTorch loop"
BARE, SINGLE = f"{RUNNER}, measuring nothing", f"{TORCH}, one thread"
PRODUCTS = "matrix products alone"


Trainer = Callable[[], float]
"""Takes `steps` more steps (of each run) and returns the last loss."""


def measure(
    *,
    steps: int,
    runs: int,
    rounds: int,
    networks: Sequence[Literal["mlp", "cnn"]] = (),
    work: Work | None = None,
) -> Report:
    """Trains for `rounds` rounds with each contender that is here; all networks by default."""
    every: int = Work._field_defaults["evaluate_every"]
    steps = max(every, steps - steps % every)
    works = {"mlp": Work(steps, runs), "cnn": cnn(steps // 10, runs)}
    chosen = [work] if work else [works[name] for name in networks or works]
    torch = find_spec("torch") is not None
    absent = {} if torch else {TORCH: "No module named 'torch'"}
    # The processes share an accelerator's memory: none may take most of it at the start.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    timed = {one.network: _compare(one, rounds, torch=torch) for one in chosen}
    data = pd.concat([one.assign(network=network) for network, one in timed.items()])
    tables = {network: table(one) for network, one in timed.items()}
    looks = [
        f"{one.network}: {one.steps} steps per run in each round; all but those said to measure "
        f"nothing evaluate on {one.test_examples} test examples every {one.evaluate_every}."
        for one in chosen
    ]
    return Report("train", "Training", data, tables, [*_notes(chosen[0], absent), *looks])


def _compare(work: Work, rounds: int, *, torch: bool) -> pd.DataFrame:
    contenders = {
        name: who
        for name, who in CONTENDERS.items()
        if (torch or TORCH not in name) and not (work.is_cnn and name in OF_DENSE_LAYERS)
    }
    with ExitStack() as stack:
        clocks = {}
        for name, (make, on_every_core) in contenders.items():
            announce(f"{name}: compiling")
            process = stack.enter_context(
                ProcessPoolExecutor(
                    1,
                    mp_context=get_context("spawn"),
                    initializer=use_all_cores if on_every_core else None,
                )
            )
            clocks[name] = _Clock(process, make, work, work.runs if on_every_core else 1)
            clocks[name]()
        announce(f"{rounds} rounds of {work.steps} steps")
        timings = measure_rounds(clocks, rounds=rounds, seed=0)
    return compare(timings, FLAX)


def table(data: pd.DataFrame) -> pd.DataFrame:
    """Returns the throughput, and how many times that of the Flax loop it is."""
    wall, cpu = data.query("clock == 'wall'"), data.query("clock == 'CPU'")
    ratios = ["ratio", "ratio_q25", "ratio_q75"]
    return pd.DataFrame(
        {
            "": list(wall["name"]),
            "steps x runs per second": [f"{1 / seconds:.0f}" for seconds in wall["seconds"]],
            "µs per step and run": [f"{1e6 * seconds:.0f}" for seconds in wall["seconds"]],
            "times faster, wall time": [spread(*row) for row in wall[ratios].to_numpy()],
            "times faster, CPU time": [spread(*row) for row in cpu[ratios].to_numpy()],
        }
    )


class _Clock(NamedTuple):
    process: ProcessPoolExecutor
    make: Callable[[Work], Trainer]
    work: Work
    runs: int

    def __call__(self) -> dict[str, float]:
        times = self.process.submit(_train_once, self.make, self.work).result()
        return {clock: seconds / self.work.steps / self.runs for clock, seconds in times.items()}


def _train_once(make: Callable[[Work], Trainer], work: Work) -> dict[str, float]:
    train = _trainer(make, work)
    cpu, wall = time.process_time(), time.perf_counter()
    loss = train()
    times = {"wall": time.perf_counter() - wall, "CPU": time.process_time() - cpu}
    if not math.isfinite(loss):
        raise RuntimeError(f"{make.__name__} diverged: its loss is {loss}.")
    return times


@cache
def _trainer(make: Callable[[Work], Trainer], work: Work) -> Trainer:
    return make(work)


def runner(work: Work) -> Trainer:
    """Makes `python -m experiments run` without its files: all runs at once, measurements on."""
    return _runner(work, bare=False)


def bare_runner(work: Work) -> Trainer:
    """Returns the same, but that it looks at nothing but the loss."""
    return _runner(work, bare=True)


def _runner(work: Work, *, bare: bool) -> Trainer:
    from experiments.study import MLP, Standard, Study
    from experiments.study.examples import Pair, prepare
    from experiments.study.model import find_model
    from experiments.study.sweep import make_mesh, place, sweep_of
    from experiments.study.train import make_run

    study = Study(
        name="throughput",
        claim="none",
        data="mnist",
        norms={"batch norm": Standard()},
        network=CNN if work.is_cnn else MLP(work.widths, "sigmoid"),
        optimizer="sgd",
        learning_rates=(LEARNING_RATE,),
        seeds=tuple(range(work.runs)),
        batch_size=work.batch_size,
        steps=work.steps,
        evaluate_every=work.evaluate_every,
    )
    mesh = make_mesh()
    data = data_of(work)
    shape = (-1, work.side, work.side, 1)
    splits = {
        "train": Pair(data.train_images.reshape(shape), data.train_labels),
        "test": Pair(data.test_images.reshape(shape), data.test_labels),
    }
    examples = place(prepare(splits, classes=True), mesh)
    run = make_run(study, find_model(study, Standard(), examples.shape, examples.outputs))
    sweep = sweep_of(_without_measures(run, study.evaluate_every) if bare else run, study, mesh)
    states = sweep.init(examples)

    def train() -> float:
        nonlocal states
        measures = {}
        for _ in range(study.steps // study.evaluate_every):
            states, window = sweep.advance(examples, states)
            measures = sweep.pick(jax.device_get(window | sweep.evaluate(examples, states)))
        return float(np.max(measures["train_loss"]))

    return train


def _without_measures(run: Run, steps: int) -> Run:
    def advance(data: Examples, state: RunState, _: None) -> tuple[RunState, dict[str, jax.Array]]:
        def one_step(_: Any, carry: tuple[RunState, jax.Array]) -> tuple[RunState, jax.Array]:
            state, taken = run.step(data, carry[0])
            return state, taken.loss

        state, loss = jax.lax.fori_loop(0, steps, one_step, (state, jax.numpy.float32(0)))
        return state, {"train_loss": loss}

    return run._replace(advance=advance, evaluate=lambda data, state: {})


def flax_loop(work: Work) -> Trainer:
    """Makes the usual Flax script: a Python loop over a jitted, donated step, numpy batches."""
    import flax.linen as nn
    import optax
    from flax.training.train_state import TrainState

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            if work.is_cnn:
                return CNN(lambda name: nn.BatchNorm(use_running_average=not train, name=name))(x)
            for width in work.widths:
                x = nn.BatchNorm(use_running_average=not train)(nn.Dense(width)(x))
                x = nn.sigmoid(x)
            return nn.Dense(10)(x)

    class State(TrainState):
        batch_stats: Any

    @partial(jax.jit, donate_argnums=0)
    def step(state: State, images: jax.Array, labels: jax.Array) -> tuple[State, jax.Array]:
        def loss_of(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params, "batch_stats": state.batch_stats}
            scores, updated = state.apply_fn(variables, images, True, mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
            return losses.mean(), updated["batch_stats"]

        (loss, batch_stats), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        return state.apply_gradients(grads=gradient, batch_stats=batch_stats), loss

    @jax.jit
    def accuracy(state: State, images: jax.Array, labels: jax.Array) -> jax.Array:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        scores = state.apply_fn(variables, images, False)
        return jax.numpy.mean(jax.numpy.argmax(scores, axis=1) == labels)

    data = data_of(work)
    shape = (-1, work.side, work.side, 1) if work.is_cnn else (-1, work.side**2)
    images, test_images = (
        scaled(split).reshape(shape) for split in (data.train_images, data.test_images)
    )
    model = Model()
    variables = model.init(jax.random.key(0), images[:1], True)
    state = State.create(
        apply_fn=model.apply,
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        tx=optax.sgd(LEARNING_RATE),
    )
    batches = batches_of(work)

    def train() -> float:
        nonlocal state
        loss = jax.numpy.zeros(())
        for i in range(1, work.steps + 1):
            rows = next(batches)
            state, loss = step(state, images[rows], data.train_labels[rows])
            if i % work.evaluate_every == 0:
                float(accuracy(state, test_images, data.test_labels))
        return float(loss)

    return train


def torch_loop(work: Work) -> Trainer:
    """Returns the usual PyTorch script: eager, one run."""
    import torch
    from torch import nn

    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = data_of(work)
    images, test_images = (
        torch.from_numpy(scaled(split)).to(device)
        for split in (data.train_images, data.test_images)
    )
    labels, test_labels = (
        torch.from_numpy(split.astype(np.int64)).to(device)
        for split in (data.train_labels, data.test_labels)
    )
    sizes = (work.side**2, *work.widths)
    hidden = [
        layer
        for inputs, width in zip(sizes, work.widths)
        for layer in (nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.Sigmoid())
    ]
    model = nn.Sequential(*hidden, nn.Linear(sizes[-1], 10)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    batches = batches_of(work)

    def accuracy() -> float:
        model.eval()
        with torch.no_grad():
            right = model(test_images).argmax(1) == test_labels
        model.train()
        return right.float().mean().item()

    def train() -> float:
        loss = torch.zeros(())
        for i in range(1, work.steps + 1):
            rows = torch.from_numpy(next(batches)).to(device)
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if i % work.evaluate_every == 0:
                accuracy()
        return loss.item()

    return train


def torch_loop_on_one_thread(work: Work) -> Trainer:
    """Returns the same, without handing small layers from thread to thread."""
    import torch

    torch.set_num_threads(1)
    return torch_loop(work)


def products(work: Work) -> Trainer:
    """Makes a yardstick: a step's matrix products and nothing else, by numpy, one run a core."""
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(0)
    sizes = (work.side**2, *work.widths, 10)
    shapes = [
        shape
        for i, (inputs, units) in enumerate(itertools.pairwise(sizes))
        for shape in (
            (work.batch_size, inputs, units),  # the layer
            (inputs, work.batch_size, units),  # the gradient of its kernel
            (work.batch_size, units, inputs),  # that of its input, which the first has no need of
        )[: 3 if i else 2]
    ]

    def operand(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    def one_run(_: int) -> None:
        pairs = [(operand(m, k), operand(k, n), operand(m, n)) for m, k, n in shapes]
        for _ in range(work.steps):
            for a, b, out in pairs:
                np.matmul(a, b, out=out)

    def train() -> float:
        with threadpool_limits(1), ThreadPoolExecutor(cores()) as pool:
            list(pool.map(one_run, range(work.runs)))
        return 0.0

    return train


# Who trains, and whether all runs at once, on devices that are one core each.
CONTENDERS: dict[str, tuple[Callable[[Work], Trainer], bool]] = {
    RUNNER: (runner, True),
    BARE: (bare_runner, True),
    FLAX: (flax_loop, False),
    TORCH: (torch_loop, False),
    SINGLE: (torch_loop_on_one_thread, False),
    PRODUCTS: (products, True),
}
OF_DENSE_LAYERS = (TORCH, SINGLE, PRODUCTS)


def _notes(work: Work, absent: dict[str, str]) -> list[str]:
    return [
        f"{RUNNER}: {work.runs} runs at once over one XLA device per core, each on one thread; all "
        "its measurements included.",
        f"{FLAX}: one run, a Python loop over a jitted and donated step, batches from numpy. "
        f"{TORCH}: one run, eager. With all threads unless said.",
        f"{PRODUCTS}: {work.runs} runs of numpy's, one thread to each core. A yardstick and no "
        "bound: XLA is faster at some of them.",
        "Each trained once in each round, in random order, in a process of its own. Times faster: "
        f"seconds per step and run of the {FLAX} by the row's, per round; median and quartiles.",
        *absences(absent),
    ]
