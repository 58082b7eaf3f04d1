"""Confirmation of a study: the setting chosen for each norm, trained again on fresh seeds.

Seeds that chose nothing flatter no choice, so what they reach can be quoted as it is. They are
small studies, one for each norm, in folders of their own in the study's: `confirmation/1/0` holds
the first look at the first norm. Where a verdict was to be reached `until` so many seeds, those of
the second look are trained only if the first has not decided.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr

from experiments.runner import folder, results
from experiments.runner.folder import CONFIRMATION, PAGE, FolderError
from experiments.study.config import Study
from experiments.study.values import ConfigError
from experiments.system import checksums, machines
from experiments.system.files import remove, write_whole

PLAN = "plan.json"


class Setting(NamedTuple):
    """A setting that a norm's network is trained with, where a study has several."""

    values: dict[str, float]
    """Of each field that the study has several values of."""
    learning_rate: float

    def __str__(self) -> str:
        words = [f"{field} {value:g}" for field, value in self.values.items()]
        return ", ".join([*words, f"rate {self.learning_rate:g}"])


class Plan(NamedTuple):
    """The number of fresh seeds, fixed before any is trained."""

    seeds: int
    """At the first look."""
    until: int | None = None
    """At the second, in all; None for one look alone."""

    @property
    def looks(self) -> list[int]:
        """Seeds in all, at each look."""
        return [self.seeds, *([] if self.until is None else [self.until])]


def make_plan(study: Study, confirm: int | None, until: int | None) -> Plan | None:
    """Returns the plan that was asked for, None for none; without `confirm` as many as there are.

    Raises:
        ConfigError: when it gives no interval, or no second look.
    """
    if confirm is None and until is None:
        return None
    plan = Plan(len(study.seeds) if confirm is None else confirm, until)
    if plan.seeds < 2:
        raise ConfigError(f"--confirm {plan.seeds}: needs 2 seeds or more, to have an interval.")
    if until is not None and until <= plan.seeds:
        raise ConfigError(
            f"--until-decided {until}: needs more seeds than the {plan.seeds} that are looked at "
            "first (--confirm)."
        )
    return plan


class Confirmation(NamedTuple):
    """The confirmation of a study."""

    plan: Plan
    choose: Callable[[xr.Dataset], Mapping[str, Setting]]
    """From what the study measured, the setting of each of its norms."""
    decides: Callable[[xr.Dataset, Plan], bool]
    """From what was measured on fresh seeds, whether there is nothing left to decide."""


def confirm(
    study: Study,
    directory: Path,
    how: Confirmation,
    train: Callable[[Study, Path], None],
    say: Callable[[str], None],
) -> None:
    """Carries out what is left of a confirmation, with `train(study, folder)`.

    Raises:
        FolderError: when `directory` was confirmed by another plan.
    """
    machines.on_first(lambda: _claim(directory, how.plan))
    settings = _shared_settings(directory, how)
    for look, (begin, end) in enumerate(itertools.pairwise([0, *how.plan.looks])):
        if look and machines.agree(machines.is_first() and _is_decided(directory, how)):
            return
        seeds = fresh_seeds(study, end)[begin:]
        for position, (label, setting) in enumerate(settings.items()):
            place = folder_of(directory, look, position)
            if machines.agree(machines.is_first() and checksums.is_right(place, results.METRICS)):
                continue
            say(f"“{label}” at {setting} again, on {len(seeds)} fresh seeds:")
            machines.on_first(lambda place=place: _prepare(directory, place))
            train(study_of(study, label, setting, seeds), place)


def study_of(study: Study, label: str, setting: Setting, seeds: tuple[int, ...]) -> Study:
    """Returns the study of one norm at one setting, on other seeds."""
    return dataclasses.replace(
        study,
        norms={label: study.norms[label]},
        learning_rates=(setting.learning_rate,),
        seeds=seeds,
        **{field: (value,) for field, value in setting.values.items()},
    )


def fresh_seeds(study: Study, count: int) -> tuple[int, ...]:
    """Returns the smallest seeds that the study does not have."""
    return tuple(itertools.islice((s for s in itertools.count() if s not in study.seeds), count))


def folder_of(directory: Path, look: int, position: int) -> Path:
    """Returns the folder of one look, counted from 0, at the norm of that position."""
    return directory / CONFIRMATION / str(look + 1) / str(position)


def planned(directory: Path) -> Plan | None:
    """Returns by which plan the study in `directory` is confirmed, None if by none.

    Raises:
        FolderError: when it cannot be read.
    """
    path = directory / CONFIRMATION / PLAN
    try:
        return Plan(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise FolderError(f"{path}: cannot be read ({error}).") from error


def confirmed(directory: Path) -> xr.Dataset | None:
    """Returns what was measured on fresh seeds, a `norm` by its label; None before a look."""
    plan, config = planned(directory), folder.read_config(directory)
    if plan is None or config is None:
        return None
    looks: list[xr.Dataset] = []
    for look in range(len(plan.looks)):
        places = [folder_of(directory, look, position) for position in range(len(config["norms"]))]
        if not all(checksums.is_right(place, results.METRICS) for place in places):
            break
        looks.append(_joined([_only_network(place) for place in places], "norm"))
    return _joined(looks, "seed") if looks else None


def _only_network(place: Path) -> xr.Dataset:
    """Returns what the study in `place` measured of its one network, by its label."""
    dataset = results.load(place)
    label = results.labels(dataset)[0]
    coordinates = [name for name, along in dataset.coords.items() if along.dims == ("norm",)]
    dataset = dataset.drop_vars(coordinates).assign_coords(norm=[label])
    # A norm's own rate, by which it is not to be told from others.
    return dataset.isel(learning_rate=0).assign_coords(learning_rate=0.0)


def _joined(parts: list[xr.Dataset], dim: str) -> xr.Dataset:
    # All parts measured the same, so nothing is aligned or compared.
    how: Any = {"data_vars": "all", "coords": "minimal", "compat": "override"}
    return xr.concat(parts, dim, join="override", combine_attrs="override", **how)


def _claim(directory: Path, plan: Plan) -> None:
    before = planned(directory)
    if before is None:
        path = directory / CONFIRMATION / PLAN
        path.parent.mkdir(exist_ok=True)
        write_whole(path, f"{json.dumps(plan._asdict())}\n".encode())
    elif before != plan:
        raise FolderError(
            f"{directory}: is confirmed with {_flags(before)}, not {_flags(plan)}: seeds added "
            "after a look would make more than 5 % of verdicts wrong. Plan them from the start, in "
            "another folder with --out."
        )


def _flags(plan: Plan) -> str:
    until = "" if plan.until is None else f" --until-decided {plan.until}"
    return f"--confirm {plan.seeds}{until}"


def _prepare(directory: Path, place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    remove(directory / PAGE)  # it says less than there will be


def _shared_settings(directory: Path, how: Confirmation) -> dict[str, Setting]:
    def choose() -> bytes:
        return json.dumps(dict(how.choose(results.load(directory)))).encode()

    chosen = json.loads(machines.from_first(choose))
    return {label: Setting(*setting) for label, setting in chosen.items()}


def _is_decided(directory: Path, how: Confirmation) -> bool:
    measured = confirmed(directory)
    return measured is not None and how.decides(measured, how.plan)
