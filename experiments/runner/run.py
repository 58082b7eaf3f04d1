"""Carry out a study: train every network at every rate from every seed, and keep what was measured.

Networks are trained one after the other, each with all its runs at once. A study that was killed
goes on where it was, and the result is, bit for bit, what it would have been.
"""

import json
import time
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jax.sharding import Mesh

from experiments.runner import checkpoint, folder, results
from experiments.runner.checkpoint import Checkpoint, CheckpointError, Saver
from experiments.runner.measured import Mark, Record
from experiments.runner.rows import ROWS, Evaluation, Rows, evaluated
from experiments.runner.size import check_size
from experiments.runner.variables import SECONDS
from experiments.study.config import Study, as_json, networks_of, swept
from experiments.study.examples import Examples
from experiments.study.model import Model
from experiments.study.sweep import Sweep, make_sweep, mesh_of, place
from experiments.study.tasks import EXAMPLE_SCORE
from experiments.study.trace import Traced, identity, trace
from experiments.study.train import RunState
from experiments.study.windows import plain_steps
from experiments.system import checksums, interrupts, machines
from experiments.system.console import Console
from experiments.system.environment import environment
from experiments.system.files import set_aside
from experiments.system.interrupts import Interrupted, Stop
from experiments.system.progress import Show, progress
from experiments.system.text import counted

if TYPE_CHECKING:
    from experiments.runner.events import Events


def run(
    study: Study,
    directory: Path,
    *,
    data_dir: Path | None,
    command: str,
    console: Console,
    stop: Stop = interrupts.never,
    tensorboard: bool = False,
    programs: "Programs | None" = None,
) -> None:
    """Trains and measures `study`; `directory` then holds its config and metrics.

    Goes on where an earlier call for the same study was killed, and trains nothing where one has
    finished. With several processes (`machines`) all call it, and the folder is process 0's.

    Args:
        study: What to train.
        directory: Where results go; it exists, and the caller holds it (`lock.hold`).
        data_dir: Where MNIST's files lie; as in `data.load`.
        command: What a reader would type to repeat this; kept in the dataset.
        console: Where progress is shown: a bar on a terminal, a line now and then elsewhere.
        stop: Asked after each evaluation whether to end there. One process's answer is all's.
        tensorboard: Whether to write events for TensorBoard too; so where a study has begun them.
        programs: Those of studies before, which are not compiled again; this one's are added.

    Raises:
        ConfigError: when the study does not fit the devices, or a network of it fails.
        FolderError: when `directory` is another study's, or one of other data.
        DataError: when the study's data cannot be had.
        CheckpointError: when what was saved is not of this program.
        SaveError: when `directory` cannot be written to.
        MachinesError: when another process has other data.
        Interrupted: when `stop` says so; all is saved then.
    """
    before = partial(_finished_before, study, directory, console, tensorboard)
    if machines.agree(machines.is_first() and before()):
        return
    mesh_of(study)  # refuses before anything is written
    traced = trace(study, data_dir)
    check_size(traced)
    known = identity(traced)
    machines.check_same("data", known["data"].encode())
    machines.check_same("networks", json.dumps(known["programs"]).encode())
    machines.on_first(lambda: folder.claim(study, known, directory))
    console.print(
        f"{study.name}: {counted(len(networks_of(study)), 'network')} x "
        f"{counted(len(study.learning_rates), 'learning rate')} x "
        f"{counted(len(study.seeds), 'seed')}, {counted(study.steps, 'step')} each, on "
        f"{counted(jax.device_count(), 'device')} ({jax.devices()[0].device_kind})",
        soft_wrap=True,
    )
    begun = _may_go_on(folder.events_of(directory), directory, console)
    logs = [Rows(directory), *_events(directory, wanted=tensorboard or begun)]
    belongs_to = {"config": json.dumps(as_json(study)), "data": known["data"]}
    compiled = _Programs(known["programs"], {} if programs is None else programs)
    under_way = _UnderWay(traced, directory, logs, console, stop, belongs_to, compiled)
    with progress(console, len(study.norms) * study.steps, under_way.done) as show:
        under_way.finish(show)
    dataset = under_way.dataset.assign_attrs(command=command)
    machines.on_first(partial(_finish, dataset, directory, logs))


def _finished_before(study: Study, directory: Path, console: Console, tensorboard: bool) -> bool:
    folder.check(study, directory)
    dataset = folder.finished(directory)
    if dataset is None:
        return False
    console.print(f"{directory}: finished before.", soft_wrap=True)
    checkpoint.clear(directory)
    if not checksums.is_right(directory, ROWS):
        console.print(f"{directory / ROWS}: made again, it was not as written.", soft_wrap=True)
        set_aside(directory / ROWS)
        Rows(directory).end(dataset)
    for events in _events(directory, wanted=tensorboard):
        events.begin(dataset, len(study.norms) * study.steps)
    return True


def _events(directory: Path, *, wanted: bool) -> "list[Events]":
    if not wanted:
        return []
    from experiments.runner.events import Events  # its library need not be there

    return [Events(directory)]


def _may_go_on(begun: Sequence[Path], directory: Path, console: Console) -> bool:
    """Tells whether events that a study has begun can go on, and says so where they cannot."""
    if begun and find_spec("tensorboardX") is None:
        console.print(
            f"{directory / folder.EVENTS}: stops here, for want of a package: "
            "pip install tensorboardX",
            soft_wrap=True,
        )
        return False
    return bool(begun)


def _finish(dataset: xr.Dataset, directory: Path, logs: "Sequence[Rows | Events]") -> None:
    for log in logs:
        log.end(dataset)
    results.save(dataset, directory)
    checkpoint.clear(directory)


Programs = dict[Hashable, Sweep]
"""Of networks, by what tells their programs apart."""


class _Programs(NamedTuple):
    """The programs of a study's networks, compiled once for all studies that have them."""

    identities: Mapping[str, str]
    kept: Programs

    def sweep(self, study: Study, label: str, model: Model, mesh: Mesh) -> Sweep:
        key = (label, self.identities[label], study.evaluate_every, mesh)
        networks, kept = swept(study, study.norms[label]), self.kept.get(key)
        runs = len(networks) * len(study.learning_rates) * len(study.seeds)
        if kept is not None and runs <= kept.places:
            return kept.of(study, networks)
        self.kept[key] = sweep = make_sweep(study, model, mesh)
        return sweep


class _UnderWay:
    """A study with what it has measured so far, from the last checkpoint if there is one."""

    def __init__(
        self,
        traced: Traced,
        directory: Path,
        logs: "Sequence[Rows | Events]",
        console: Console,
        stop: Stop,
        belongs_to: Mapping[str, str],
        programs: _Programs,
    ) -> None:
        self.study, self._traced = traced.study, traced
        self.dataset = results.blank(traced)
        self.done = 0
        """Steps of all networks together."""
        self._state: checkpoint.Arrays = {}
        self._belongs_to, self._programs = belongs_to, programs
        self._saver, self._logs, self._stop = Saver(directory), logs, stop
        self._steps = self.dataset.step.values.tolist()
        self._say = lambda text: console.print(text, soft_wrap=True)
        saved = machines.from_first(lambda: checkpoint.newest(directory, belongs_to, self._say))
        if saved:
            mark = self._continue_from(checkpoint.unpack(saved))
            self._saver = Saver(directory, mark)
        machines.on_first(lambda: [log.begin(self.dataset, self.done) for log in logs])

    def finish(self, show: Show) -> None:
        """Trains what is not yet trained."""
        mesh = mesh_of(self.study)
        examples = place(self._traced.examples, mesh)
        for i, (label, model) in enumerate(self._traced.models.items()):
            if self.done < (i + 1) * self.study.steps:
                sweep = self._programs.sweep(self.study, label, model, mesh)
                self._train(label, sweep, examples, show)

    def _train(self, label: str, sweep: Sweep, examples: Examples, show: Show) -> None:
        self._pause_if_asked()
        show(label, self.done)
        step = self.done % self.study.steps
        states = (
            self._begin(label, sweep, examples) if step == 0 else self._restore(sweep, examples)
        )
        is_compiled = False
        for window in np.diff([at for at in self._steps if at >= step]).tolist():
            states, measures, seconds = self._advance(sweep, examples, states, window)
            step, self.done = step + window, self.done + window
            if is_compiled:
                measures[SECONDS] = np.full(1, seconds / window / sweep.runs, np.float32)
            is_compiled = True
            self._record(label, step, measures, sweep.runs)
            show(label, self.done)
            ended = step == self.study.steps
            if ended or self._is_save_due() or self._asked_to_stop():
                state = {} if ended else sweep.pick(machines.fetch(states))
                machines.on_first(partial(self._save, state, sweep.runs))
                self._pause_if_asked()

    def _advance(
        self, sweep: Sweep, examples: Examples, states: RunState, window: int
    ) -> tuple[RunState, dict[str, np.ndarray], float]:
        """Trains so many more steps; returns the state, what was measured, and their seconds."""
        plain = plain_steps(window, self.study.evaluate_every)
        begun = time.perf_counter()
        states, measures = sweep.advance(examples, states, plain)
        jax.block_until_ready(measures)
        seconds = time.perf_counter() - begun
        measures = measures | sweep.evaluate(examples, states)
        fetched = machines.fetch(measures | {"diverged_at": states.diverged_at})
        return states, sweep.pick(fetched), seconds

    def _begin(self, label: str, sweep: Sweep, examples: Examples) -> RunState:
        states = sweep.init(examples)
        first = sweep.pick(machines.fetch(sweep.evaluate(examples, states)))
        self._record(label, 0, first, sweep.runs)
        return states

    def _restore(self, sweep: Sweep, examples: Examples) -> RunState:
        like = jax.eval_shape(sweep.init, examples)
        filled = checkpoint.from_arrays(self._state, like, sweep.runs)
        runs = jax.tree.map(lambda x: x[: sweep.runs], filled)
        return machines.place(sweep.freeze(sweep.spread(runs)), sweep.sharding)

    def _record(self, label: str, step: int, measures: dict[str, np.ndarray], runs: int) -> None:
        if step < self.study.steps:
            measures = {n: v for n, v in measures.items() if not n.endswith(EXAMPLE_SCORE)}
        before = self._diverged(label)
        results.record(self.dataset, label, step, measures)
        self._tell_divergence(self._diverged(label).where(before < 0))
        kept = Record(label, step, {n: v[:runs] for n, v in measures.items()})
        machines.on_first(partial(self._log, kept))

    def _log(self, record: Record) -> None:
        self._saver.add(record)
        for log in self._logs:
            log.append(self.dataset, Evaluation(record.norm, record.step))

    def _diverged(self, label: str) -> xr.DataArray:
        return self.dataset.diverged_at.isel(norm=results.of_label(self.dataset, label)).copy()

    def _tell_divergence(self, new: xr.DataArray) -> None:
        series: Any = new.to_series()
        for network, runs in series.groupby("norm", sort=False):
            lost = runs[runs >= 0]
            if lost.size:
                _, rate, seed = lost.idxmin()
                self._say(
                    f"{network}: {lost.size} of {runs.size} runs diverged since the last "
                    f"evaluation, the first at step {lost.min():.0f} (learning rate {rate:g}, "
                    f"seed {seed})."
                )

    def _is_save_due(self) -> bool:
        return bool(machines.agree(machines.is_first() and self._saver.due()))

    def _asked_to_stop(self) -> int:
        return machines.agree(self._stop() or 0)

    def _save(self, states: Any, runs: int) -> None:
        state = checkpoint.to_arrays(states, runs)
        diverged = int((self.dataset.diverged_at >= 0).sum())
        environment = self.dataset.attrs["environment"]
        self._saver.save(
            Checkpoint(self.done, state, Mark(), diverged, environment, self._belongs_to)
        )

    def _pause_if_asked(self) -> None:
        if number := self._asked_to_stop():
            raise Interrupted(number, "Saved; the same command goes on from here.")

    def _continue_from(self, found: checkpoint.Found) -> Sequence[int]:
        saved, total = found.checkpoint, len(self.study.norms) * self.study.steps
        try:
            for record in found.records:
                results.record(self.dataset, *record)
            if saved.done > total or saved.done % self.study.steps not in self._steps:
                raise ValueError(f"step {saved.done} of {total} is not one of an evaluation.")
            if [record[:2] for record in found.records] != [*evaluated(self.dataset, saved.done)]:
                raise ValueError(f"other evaluations are kept than until step {saved.done}.")
        except (LookupError, ValueError) as error:
            raise CheckpointError(f"The checkpoint is another program's: {error}") from error
        self.done, self._state = saved.done, saved.state
        self._say(f"Continuing at step {self.done} of {total}.")
        then, now = json.loads(saved.environment), environment()
        if changed := [key for key in now if now[key] != then.get(key)]:
            self._say(f"Not as it began, so perhaps not to the bit: {', '.join(changed)}.")
        return saved.mark
