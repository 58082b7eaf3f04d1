"""The runner in processes of its own that can be killed, and that start with all imports done.

A fork server imports once, and JAX's compilation cache compiles once: what is left is a second.
The report is not drawn.
"""

import contextlib
import dataclasses
import errno
import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from experiments.runner.variables import SECONDS
from experiments.study import MLP, Study

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "experiments.runner.run",
        "experiments.report.summary",
        "sklearn.datasets",
        "sklearn.model_selection",
        "xarray.backends.scipy_",
    ]
)

# Two networks alike: twice the checkpoints' cases for one compilation.
STUDY = Study(
    name="short",
    claim="none",
    data="digits",
    norms={"one": None, "two": None},
    network=MLP((4,), "relu"),
    optimizer="momentum",
    learning_rates=(0.1, 1.0, 1e25),
    seeds=(0,),
    batch_size=8,
    steps=40,
    evaluate_every=2,
)


@dataclasses.dataclass
class Started:
    """A process at work on a study."""

    process: Any
    log: Path

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):  # its fate was quicker: `end` tells
            os.kill(self.process.pid, number)

    def end(self) -> int:
        """Waits, and returns the exit status; minus the signal that killed it."""
        self.process.join(timeout=120)
        assert not self.process.is_alive()
        return self.process.exitcode

    def wait_until_it_says(self, text: str) -> None:
        deadline = time.monotonic() + 60
        while text not in self.said:
            assert time.monotonic() < deadline, self.said
            assert self.process.is_alive(), self.said
            time.sleep(0.01)

    @property
    def said(self) -> str:
        return self.log.read_text()


class Workshop:
    """Starts processes, whose logs go to `folder`; with `fake` their training is."""

    def __init__(
        self,
        folder: Path,
        devices: int = 2,
        config: Path = Path(__file__).parent / "short_study.py",
        fake: bool = False,
    ) -> None:
        self._folder, self._devices, self._config, self._fake = folder, devices, config, fake
        self._started = 0

    def start(
        self,
        out: Path,
        *arguments: str,
        config: Path | None = None,
        prepare: Callable[..., None] | None = None,
        prepared_with: tuple[Any, ...] = (),
    ) -> Started:
        """`python -m experiments run` of the config into `out`, after `prepare(*prepared_with)`."""
        self._started += 1
        log = self._folder / f"{self._started}.log"
        command = ["run", str(config or self._config), "--out", str(out)]
        log.touch()
        process = _CONTEXT.Process(
            target=_work,
            args=(
                [*command, *arguments],
                log,
                self._devices,
                self._fake,
                prepare,
                prepared_with,
            ),
        )
        process.start()
        return Started(process, log)

    def carry_out(self, out: Path, *arguments: str, **prepared: Any) -> tuple[int, str]:
        """Exit status, and what was said."""
        started = self.start(out, *arguments, **prepared)
        return started.end(), started.said


def die_at(call: int, moment: str) -> None:
    """Kills this process while it writes its `call`-th file.

    `moment` is "half" (half of the file is there), "whole" (before it gets its name), "named"
    (before the folder is flushed) or "swept" (when the first other file is removed after it).
    """
    replace, fsync, unlink = os.replace, os.fsync, Path.unlink
    calls = 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dying_replace(aside: Any, path: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call and moment == "half":
            os.truncate(aside, os.path.getsize(aside) // 2)
        if calls == call and moment in ("half", "whole"):
            die()
        replace(aside, path)

    def dying_fsync(file: int) -> None:
        if calls == call and moment == "named":
            die()
        fsync(file)

    def dying_unlink(path: Path, missing_ok: bool = False) -> None:
        if calls >= call and moment == "swept":
            die()
        unlink(path, missing_ok=missing_ok)

    os.replace, os.fsync, Path.unlink = dying_replace, dying_fsync, dying_unlink


def full_disk_at(call: int) -> None:
    """The `call`-th flush of this process finds the disk full."""
    fsync = os.fsync
    calls = 0

    def failing_fsync(file: int) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    os.fsync = failing_fsync


class _Fake(NamedTuple):
    """The state of `fake_training`."""

    weights: Any
    diverged_at: Any


def fake_training() -> None:
    """Whole numbers in place of training: each step's follow from those of the step before.

    The arrays lie on devices as a sweep's do, and nothing takes long to trace or to compile.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    from experiments.runner import plan, results, run
    from experiments.study.examples import Examples
    from experiments.study.sweep import Sweep
    from experiments.study.trace import Traced

    def trace(study: Study, data_dir: Any = None) -> Any:
        few = np.zeros((4, 2), np.uint8), np.zeros(4, np.int32)
        none = few[0][:0], few[1][:0]
        model: Any = types.SimpleNamespace(layers=["hidden_1", "output"], places=["hidden_1"])
        examples = Examples(*few, *none, *few, 1.0, (2,), 2)
        return Traced(study, examples, dict.fromkeys(study.norms, model))

    def identity(traced: Any) -> Any:
        programs = dict.fromkeys(traced.models, "fake")
        return {"networks": [*programs], "data": "fake", "programs": programs, "lowered": "fake"}

    def make_sweep(study: Study, model: Any, mesh: Any) -> Any:
        blank = results.blank(trace(study))
        runs = len(study.learning_rates) * len(study.seeds)
        sharding = NamedSharding(mesh, PartitionSpec("runs"))
        jit = partial(jax.jit, out_shardings=sharding)

        @jit
        def init(images: Any) -> _Fake:
            run = jnp.minimum(jnp.arange(runs + -runs % mesh.size, dtype=jnp.uint32), runs - 1)
            weights = 50 * run[:, None] + jnp.arange(50, dtype=jnp.uint32)[None]
            return _Fake(weights, jnp.full(len(run), -1, jnp.int32))

        @jit
        def advance(images: Any, states: _Fake, plain: Any) -> Any:
            weights = states.weights * 1664525 + 1013904223
            return states._replace(weights=weights), {"train_loss": _part(weights, ())}

        @jit
        def evaluate(images: Any, states: _Fake) -> Any:
            names = [n for n in blank.data_vars if n != "train_loss" and "step" in blank[n].dims]
            names.remove("seconds_per_step")
            right = (states.weights[:, :4] % 2).astype(jnp.int8)
            measured = {n: _part(states.weights, blank[n].shape[4:]) for n in names}
            return measured | {"test_example_score": right}

        return Sweep(init, advance, evaluate, sharding, runs, runs + -runs % mesh.size, init)

    def _part(weights: Any, shape: tuple[int, ...]) -> Any:
        chosen = np.arange(np.prod(shape, dtype=int)) % 50
        return weights[:, chosen].reshape(-1, *shape).astype(jnp.float32)

    run.make_sweep = plan.make_sweep = make_sweep
    run.trace = plan.trace = trace
    run.identity = identity
    run.check_size = plan.check_size = lambda traced: None


def signalled_at(evaluation: int, number: signal.Signals) -> None:
    """This process is sent `number` as it records its `evaluation`-th evaluation."""
    from experiments.runner import results

    record = results.record
    calls = 0

    def recording(dataset: Any, norm: str, step: int, measures: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == evaluation:
            os.kill(os.getpid(), number)
        record(dataset, norm, step, measures)

    results.record = recording


def wait_for_ever() -> None:
    """The first measurement is never recorded."""
    from experiments.runner import results

    def wait(*_: Any) -> None:
        print("waiting")
        threading.Event().wait()

    results.record = wait


def on_devices(count: int) -> None:
    """The CPU is `count` devices."""
    flag = "--xla_force_host_platform_device_count"
    # The flags of this process's tests, but for the number.
    os.environ["XLA_FLAGS"] = re.sub(rf"{flag}=\d+", f"{flag}={count}", os.environ["XLA_FLAGS"])


def on_devices_found_late(count: int) -> None:
    """The CPU is `count` devices, and by the time they are known the others could be gone."""
    import jax

    on_devices(count)
    devices = jax.devices

    def devices_late() -> list[Any]:
        found = devices()
        time.sleep(2)
        return found

    jax.devices = devices_late


def small_mnist() -> None:
    """MNIST is the digits."""
    from experiments.study import data

    load = data.load
    data.load = lambda name, data_dir: load("digits")


def other_data() -> None:
    """The digits in another order."""
    from experiments.study import data

    digits = data.load("digits")
    digits = digits._replace(train_labels=digits.train_labels[::-1])
    data.load = lambda *_: digits


def saves_once() -> None:
    """The first save is the last that time allows."""
    from experiments.runner import checkpoint

    checkpoint.TRAINING_PER_SAVE = 10**9


def behind_a_proxy() -> None:
    """What clusters set, and nobody listens there."""
    os.environ |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")


def slurm_task(index: int, port: int) -> None:
    """What srun tells the tasks of a step with two, whose processes meet at `port`."""
    behind_a_proxy()
    os.environ |= {
        "SLURM_JOB_ID": str(port % 4096),
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index),
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "localhost",
    }


def _report() -> types.ModuleType:
    """Stands in for `experiments.report.write`: the numbers, and no drawings."""
    from experiments.report.summary import summarize
    from experiments.runner import results
    from experiments.system import checksums

    def write_report(directory: Path) -> Path:
        # A clock's numbers are others each time.
        dataset = results.load(directory).drop_vars("seconds_per_step")
        summary = json.dumps(summarize(dataset))
        (directory / "summary.json").write_text(summary)
        (directory / "report.html").write_text("")
        checksums.add(directory, ["summary.json", "report.html"])
        return directory / "report.html"

    module: Any = types.ModuleType("experiments.report.write")
    module.write_report, module.print_table = write_report, lambda *_: None
    return module


def _work(
    command: list[str],
    log: Path,
    devices: int,
    fake: bool,
    prepare: Callable[..., None] | None,
    prepared_with: tuple[Any, ...],
) -> None:
    import jax

    from experiments.__main__ import main
    from experiments.runner import checkpoint

    sys.stdout = sys.stderr = log.open("w", buffering=1)
    jax.config.update("jax_platforms", "cpu")
    checkpoint.TRAINING_PER_SAVE = 0  # at every evaluation
    sys.modules["experiments.report.write"] = _report()
    on_devices(devices)
    if fake:
        fake_training()
    if prepare:
        prepare(*prepared_with)
    main(command)


def as_arrays(dataset: xr.Dataset) -> dict[str, np.ndarray]:
    """The variables of `dataset` that the study decides, by name: all but the seconds."""
    return {str(name): v.values for name, v in dataset.data_vars.items() if name != SECONDS}
