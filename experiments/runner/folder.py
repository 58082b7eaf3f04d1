"""Folder of a study: whose it is, and how far that study has come."""

import json
import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import xarray as xr

from experiments.runner import checkpoint, results
from experiments.runner.rows import ROWS
from experiments.study.config import DEFAULTS, Study, as_json
from experiments.study.values import show
from experiments.system import checksums
from experiments.system.checksums import SUMS, DamagedError
from experiments.system.files import PART, remove, set_aside, sweep_parts

EVENTS = "tensorboard"
EVENTS_PREFIX, EVENTS_DIGITS = "events.out.tfevents.", 20  # of a file's name
PAGE, SUMMARY, FIGURES = "report.html", "summary.json", "figures"
CONFIRMATION = "confirmation"
# What a study writes in its folder, beside its config: nothing else there is replaced or removed.
FILES = (results.METRICS, ROWS, SUMMARY, PAGE, SUMS)
NAMES = (
    *FILES,
    *(f"{name}{PART}" for name in FILES),
    FIGURES,
    EVENTS,
    checkpoint.FOLDER,
    CONFIRMATION,
)

_AS_JSON = {name: show(value) if name == "task" else value for name, value in DEFAULTS.items()}
_INSTEAD = "Choose another folder with --out, or remove this one."


class FolderError(ValueError):
    """A folder that this study cannot be carried out in; the message is one line."""


def check(study: Study, directory: Path) -> None:
    """Checks that what lies in `directory` under a name of ours, if anything, is of `study`.

    Raises:
        FolderError: when it is another study's, listing the fields that differ, or nobody knows
            whose.
    """
    check_config(as_json(study), directory, _AS_JSON)


def check_config(
    config: Mapping[str, Any], directory: Path, defaults: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Does what `check` does, for a study that is given by its config.

    Args:
        config: What `config.json` will say, but for the identity.
        directory: The folder.
        defaults: Of fields that an older config lacks.

    Raises:
        FolderError: as `check`.
    """
    saved = read_config(directory)
    if saved is None:
        if there := [name for name in NAMES if os.path.lexists(directory / name)]:
            raise FolderError(
                f"{directory}: has {', '.join(there)}, which a study would replace, and no "
                f"{results.CONFIG} that says it is a study's. Choose another folder with --out."
            )
        return
    given = json.loads(json.dumps(config))
    saved = {**defaults, **saved}  # a field may be younger than the folder
    saved.pop("identity", None)
    fields = sorted(given.keys() | saved.keys())
    if differing := [name for name in fields if given.get(name) != saved.get(name)]:
        there, here = (
            ", ".join(f"{name}={json.dumps(config.get(name))}" for name in differing)
            for config in (saved, given)
        )
        raise FolderError(f"{directory}: is another study's: {there}; not {here}. {_INSTEAD}")


def check_page(page: Path, directories: Iterable[Path]) -> None:
    """Checks that the page that compares the studies in `directories` replaces no user's file.

    Raises:
        FolderError: when something of its name is there, and none of the studies.
    """
    ours = any((directory / results.CONFIG).is_file() for directory in directories)
    if os.path.lexists(page) and not (ours and page.is_file()):
        raise FolderError(
            f"{page}: is there, and not of these studies, which would replace it. Choose another "
            "folder with --out."
        )


def claim(study: Study, identity: dict[str, Any], directory: Path) -> None:
    """Makes `directory` the folder of `study`, and tidies up after writers that were killed.

    Raises:
        FolderError: when what lies there has other data, or was trained by other programs.
    """
    there = (read_config(directory) or {}).get("identity", {})
    if there.get("data", identity["data"]) != identity["data"]:
        raise FolderError(
            f"{directory}: was begun with other data, and cannot go on with this: its checksum is "
            f"{identity['data'][:12]}.., was {there['data'][:12]}... {_INSTEAD}"
        )
    # Another JAX lowers the same network to another text.
    if there.get("lowered") == identity["lowered"]:
        for label, program in identity["programs"].items():
            if there["programs"].get(label) != program:
                raise FolderError(
                    f"{directory}: norms[{label!r}] was begun as another program: a function or a "
                    f"class that the config names is not as it was. {_INSTEAD}"
                )
    if results.METRICS in checksums.names(directory):  # damaged: it would have `finished`
        set_aside(directory / results.METRICS)
        remove(directory / SUMS)
    sweep_parts(directory, (results.CONFIG, *FILES))
    checkpoint.sweep(directory)
    if not (directory / results.CONFIG).exists():
        results.save_config(as_json(study), identity, directory)


def finished(directory: Path) -> xr.Dataset | None:
    """Returns what was measured in `directory`; None until all is, as a study saves it last.

    Raises:
        FolderError: when it is damaged, and no checkpoint is there to make it again from.
    """
    if not (directory / results.METRICS).exists():
        return None
    try:
        return results.load(directory)
    except DamagedError as error:
        if checkpoint.paths(directory):
            return None
        raise FolderError(
            f"{error} Put a copy in its place, or remove it: `run` then trains again. To trust it "
            f"as it is: cd {shlex.quote(str(directory))} && sha256sum {results.METRICS} > {SUMS}"
        ) from error


def read_config(directory: Path) -> dict[str, Any] | None:
    """Returns the study that `directory` is of, as JSON holds it; None if it does not say.

    Raises:
        FolderError: when what it says cannot be understood.
    """
    path = directory / results.CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FolderError(f"{path}: cannot be read: {error.strerror}. {_INSTEAD}") from error
    except (ValueError, RecursionError) as error:
        raise FolderError(f"{path}: is not JSON ({error}). {_INSTEAD}") from error
    if not isinstance(config, dict):
        raise FolderError(f"{path}: is not a study. {_INSTEAD}")
    return config


def events_of(directory: Path) -> list[Path]:
    """Returns the files of events in `directory` that a study wrote.

    Those of others end otherwise, tensorboardX's own in the name of a machine.
    """
    return [*(directory / EVENTS).glob(f"*/*/{EVENTS_PREFIX}{'[0-9]' * EVENTS_DIGITS}")]
