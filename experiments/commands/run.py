"""`run CONFIG --out DIR`: train, measure and report, from the start or from where it was left."""

import dataclasses
import itertools
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

from experiments.commands import BAD_INPUT, FAILED, PROGRAM, ending
from experiments.commands.report import compare, write_up
from experiments.system.console import Console, make_console
from experiments.system.devices import DeviceError, keep_compiled
from experiments.system.interrupts import Interrupted, Stop, listening

if TYPE_CHECKING:
    from experiments.runner.confirm import Plan
    from experiments.study.config import Study


@dataclass(kw_only=True)
class _Flags:
    """Flags that are known before the config is read."""

    quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Say nothing but errors."""
    coordinator: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT")] = None
    """With several processes, which all get the same command: where process 0 is to be met. Under
    Slurm, Open MPI, Kubernetes and on Cloud TPUs JAX finds this and the next two by itself."""
    num_processes: int | None = None
    """With a coordinator: how many processes there are."""
    process_id: int | None = None
    """With a coordinator: which of them this is, from 0. Process 0 writes the folder."""


@dataclass(kw_only=True)
class _Run(_Flags):
    """Train what a config file describes, measure, and write a report.

    A study that was stopped goes on where it was; one that has finished is left as it is. Every
    field of the study can be overridden by its name. CONFIG comes first, since its values are the
    defaults: `run CONFIG --help` explains the fields and shows them.
    """

    config: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CONFIG")]
    """A Python file that defines `study = Study(...)`, or `studies = {name: Study(...)}`."""
    out: Path
    """Folder for the results; made if absent. Of several studies each has a folder in it, and
    comparison.html holds them against each other."""
    data_dir: Path | None = None
    """Folder with MNIST's four files. Otherwise JBN_DATA_DIR is asked, then they are downloaded."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NORM [NORM ...]")] = ()
    """Labels of the norms to take, of those in the config; all by default."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Say what would be done, how long it takes and how much memory, and write nothing. Compiles
    each network and trains it a little, to know."""
    no_lock: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Hold no lock on the folder, for file systems that have none: see yourself that no other
    process is at work there."""
    confirm: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Then train the best setting of each norm again, from N seeds that chose nothing: the report
    quotes what they reach."""
    until_decided: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Likewise, and where those seeds, or as many as the study has, do not decide which network is
    better, from N in all. Both looks are made with intervals of 97.5 %, so that at most 5 % of
    verdicts are wrong."""
    tensorboard: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write events for TensorBoard as well, in the folder `tensorboard`; needs tensorboardX. A
    study that was begun so goes on so."""


def main(arguments: list[str]) -> None:
    """Carries out the command that `arguments` give."""
    with listening() as stop:
        _main(arguments, stop)


def _main(arguments: list[str], stop: Stop) -> None:
    from experiments.runner.confirm import make_plan
    from experiments.runner.folder import check_page
    from experiments.study.config import as_json
    from experiments.study.values import ConfigError
    from experiments.system import machines

    console = _join(arguments)
    keep_compiled()
    with machines.together():
        chosen, studies = _choose(arguments)
        with ending(BAD_INPUT, machines.MachinesError, ConfigError):
            configs = {name: as_json(study) for name, study in studies.items()}
            machines.check_same("a study", json.dumps(configs).encode())
            for study in studies.values():
                make_plan(study, chosen.confirm, chosen.until_decided)
        folders = {chosen.out / name: study for name, study in studies.items()}
        if chosen.dry_run:
            _plan(folders, chosen, console)
            return
        page = chosen.out / "comparison.html" if len(folders) > 1 else None
        if page and machines.is_first():
            with _failures():
                check_page(page, folders)
        command = f"{PROGRAM} run {shlex.join(arguments)}"
        command = command.encode(errors="backslashreplace").decode()  # a path need not be text
        for folder, study in folders.items():
            plan = make_plan(study, chosen.confirm, chosen.until_decided)
            at_work = _Work(folder, study, plan, folder == [*folders][-1])
            _carry_out(at_work, chosen, command=command, console=console, stop=stop)
        if page and machines.is_first():
            with _failures():
                compare([*folders], page, console)


def _choose(arguments: list[str]) -> "tuple[_Run, dict[str, Study]]":
    """Returns the flags, and the studies of the config with the fields that are overridden."""
    from experiments.study.config import Study
    from experiments.study.load import load_studies, override

    @dataclass(kw_only=True)
    class Run(_Run):
        study: Annotated[Study, tyro.conf.arg(name="")]

    Run.__doc__ = _Run.__doc__
    parse = partial(tyro.cli, prog=f"{PROGRAM} run", args=arguments)
    with ending(BAD_INPUT, ValueError):
        _check_lists(arguments)
        if arguments and not arguments[0].startswith("-"):
            studies = load_studies(Path(arguments[0]))
            shown = next(iter(studies.values()))
            chosen = parse(Run, default=Run(config=tyro.MISSING, out=tyro.MISSING, study=shown))
            studies = override(studies, shown, chosen.study)
        else:
            chosen = parse(_Run)
            studies = load_studies(chosen.config)
        studies = {name: _only(chosen.only, study) for name, study in studies.items()}
    if chosen.tensorboard and find_spec("tensorboardX") is None:
        with ending(BAD_INPUT, ModuleNotFoundError):
            raise ModuleNotFoundError(
                "--tensorboard: needs a package that is absent: pip install tensorboardX"
            )
    return chosen, studies


def _check_lists(arguments: list[str]) -> None:
    for flag, value in itertools.pairwise(arguments):
        if flag.startswith("--") and re.fullmatch(r"[-+.\deE]+(,[-+.\deE]*)+", value):
            raise ValueError(
                f"{flag} {value}: values are told apart by spaces, "
                f"{flag} {' '.join(filter(None, value.split(',')))}"
            )


def _only(labels: tuple[str, ...], study: "Study") -> "Study":
    """Returns the study of those norms that have one of `labels`, all of them without any."""
    if unknown := [label for label in labels if label not in study.norms]:
        raise ValueError(f"--only {unknown[0]}: the norms are {', '.join(study.norms)}.")
    chosen = {label: norm for label, norm in study.norms.items() if not labels or label in labels}
    return dataclasses.replace(study, norms=chosen)


def _join(arguments: list[str]) -> Console:
    """Meets the other processes, if there are any; returns where to speak.

    Before the config is read, which may use JAX, and then it is too late.
    """
    from experiments.system import machines

    flags = _Flags()
    if not {"-h", "--help"} & {*arguments}:
        flags, _ = tyro.cli(_Flags, prog=f"{PROGRAM} run", args=arguments, return_unknown_args=True)
    meeting = machines.Meeting(flags.coordinator, flags.num_processes, flags.process_id)
    console = make_console(quiet=flags.quiet)
    with ending(BAD_INPUT, machines.MachinesError, DeviceError):
        machines.join(meeting, console.print)
    return make_console(quiet=flags.quiet or not machines.is_first())


def _plan(folders: "Mapping[Path, Study]", chosen: _Run, console: Console) -> None:
    from experiments.runner.confirm import make_plan
    from experiments.runner.folder import FolderError, check
    from experiments.runner.plan import print_plan
    from experiments.study.data import DataError
    from experiments.study.values import ConfigError
    from experiments.system import machines

    with ending(BAD_INPUT, ConfigError, DataError, FolderError, OSError):
        for folder, study in folders.items():
            machines.on_first(partial(check, study, folder))
            print_plan(study, chosen.data_dir, console)
            if plan := make_plan(study, chosen.confirm, chosen.until_decided):
                again = f"Then the best setting of each norm again, on {plan.looks[-1]} fresh seeds"
                console.print(f"{again} at most." if plan.until else f"{again}.", soft_wrap=True)


class _Work(NamedTuple):
    """One of the studies to be carried out."""

    folder: Path
    study: "Study"
    plan: "Plan | None"
    is_last: bool


def _carry_out(work: _Work, chosen: _Run, *, command: str, console: Console, stop: Stop) -> None:
    from experiments.report.arms import chosen_settings
    from experiments.report.confirmation import decides
    from experiments.runner.confirm import Confirmation, confirm
    from experiments.runner.run import run
    from experiments.system import lock, machines

    held = nullcontext(lock.unlocked())
    if machines.is_first() and not chosen.no_lock:
        held = lock.hold(work.folder)
    with _failures():
        with held as (dead, check_lock):
            if dead:
                console.print(f"{dead} held this folder and died.")
            train = partial(
                run,
                data_dir=chosen.data_dir,
                command=command,
                console=console,
                stop=lambda: check_lock() or stop(),
                programs={},
            )
            train(work.study, work.folder, tensorboard=chosen.tensorboard)
            if work.plan:
                how = Confirmation(work.plan, chosen_settings, decides)
                confirm(work.study, work.folder, how, train, partial(console.print, soft_wrap=True))
            if work.is_last:
                machines.part()
            if machines.is_first():
                write_up(work.folder, console)
        if number := stop():
            raise Interrupted(number, f"{work.folder}: finished.")


@contextmanager
def _failures() -> Iterator[None]:
    from experiments.runner.checkpoint import CheckpointError
    from experiments.runner.folder import FolderError
    from experiments.study.data import DataError
    from experiments.study.values import ConfigError
    from experiments.system import machines
    from experiments.system.lock import LockedError
    from experiments.system.machines import MachinesError

    unusable = (ConfigError, DataError, FolderError, LockedError, MachinesError)
    try:
        with ending(FAILED, OSError, CheckpointError), ending(BAD_INPUT, *unusable):
            yield
    except Interrupted as interrupted:
        if not machines.is_first():  # a signal that one has heard stops all
            raise SystemExit(interrupted.exit_status) from interrupted
        with ending(interrupted.exit_status, Interrupted):
            raise
