"""What a study's folder says: whose it is, and how far that study has come."""

import json
from pathlib import Path
from typing import Any

from experiments.runner import checkpoint, results
from experiments.study.config import DEFAULTS, Study, as_json
from experiments.study.values import show
from experiments.system.files import sweep_parts

_AS_JSON = {name: show(value) if name == "task" else value for name, value in DEFAULTS.items()}
_INSTEAD = "Choose another folder with --out, or remove this one."


class FolderError(ValueError):
    """A folder that this study cannot be carried out in; the message is one line."""


def check(study: Study, directory: Path) -> None:
    """Sees that what lies in `directory`, if anything, is of `study`.

    Raises:
        FolderError: when it is another study's, listing the fields that differ.
    """
    theirs = read_config(directory)
    if theirs is None:
        if is_finished(directory) or checkpoint.paths(directory):
            raise FolderError(
                f"{directory}: has results, and no {results.CONFIG} to say of what. {_INSTEAD}"
            )
        return
    mine = json.loads(json.dumps(as_json(study)))
    theirs = _AS_JSON | theirs  # a field may be younger than the folder
    theirs.pop("identity", None)
    fields = sorted(mine.keys() | theirs.keys())
    if differing := [name for name in fields if mine.get(name) != theirs.get(name)]:
        there, here = (
            ", ".join(f"{name}={json.dumps(config.get(name))}" for name in differing)
            for config in (theirs, mine)
        )
        raise FolderError(f"{directory}: is another study's: {there}; not {here}. {_INSTEAD}")


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
    sweep_parts(directory)
    sweep_parts(directory / checkpoint.FOLDER)
    if not (directory / results.CONFIG).exists():
        results.save_config(study, identity, directory)


def is_finished(directory: Path) -> bool:
    """Whether all was measured: the last thing that a study does is to save it."""
    return (directory / results.METRICS).is_file()


def read_config(directory: Path) -> dict[str, Any] | None:
    """The study that `directory` is of, as JSON holds it; None if it does not say.

    Raises:
        FolderError: when what it says cannot be understood.
    """
    path = directory / results.CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise FolderError(f"{path}: is not JSON ({error}). {_INSTEAD}") from error
    if not isinstance(config, dict):
        raise FolderError(f"{path}: is not a study. {_INSTEAD}")
    return config
