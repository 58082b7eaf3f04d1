"""Config files: Python that defines `study = Study(...)`, or several `studies` by name.

The command line overrides their fields by name. A mistake is one line that says which field, what
came and what is allowed.
"""

import dataclasses
import difflib
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import experiments.study as study
from experiments.study.config import Study
from experiments.study.values import ConfigError
from experiments.system import text


def load_studies(path: Path) -> dict[str, Study]:
    """Runs the Python file at `path`; returns its studies by the folder that each goes to.

    One `study` goes to the folder that `run` is given, here "". Of `studies = {name: Study(...)}`
    each goes to a folder of its name within it.

    Raises:
        ConfigError: when there is none, in one line that names the file.
    """
    source = _read(path)
    namespace: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    try:
        exec(compile(source, str(path), "exec"), namespace)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{path}{_line(error, path)}: {_explain(error)}") from error
    several = namespace.get("studies")
    if several is None:
        several = {"": namespace.get("study")}
    elif not isinstance(several, Mapping) or not several or not _are_folders([*several]):
        names = [*several] if isinstance(several, Mapping) else type(several).__name__
        raise ConfigError(
            f"{path}: studies of {names!r}: needs studies by name, {{'wide': Study(...)}}; a name "
            "is a folder's: letters, digits, spaces and .,=+-_, different in more than case"
        )
    for name, value in several.items():
        if not isinstance(value, Study):
            found = "nothing of that name" if value is None else f"a {type(value).__name__}"
            what = f"studies[{name!r}] to be a Study" if name else "`study = Study(...)`"
            raise ConfigError(f"{path}: needs {what}, found {found}.")
    return dict(several)


def override(studies: Mapping[str, Study], shown: Study, chosen: Study) -> dict[str, Study]:
    """Replaces in `studies` those fields of `chosen` that are not as they were `shown`.

    Raises:
        ValueError: when one of them cannot have such a field.
    """
    changed = {
        field.name: getattr(chosen, field.name)
        for field in dataclasses.fields(Study)
        if not _same(getattr(chosen, field.name), getattr(shown, field.name))
    }
    return {name: dataclasses.replace(one, **changed) for name, one in studies.items()}


def _same(a: Any, b: Any) -> bool:
    return a is b or bool(a == b)


def _are_folders(names: list[Any]) -> bool:
    taken = "comparison.html"
    return (
        all(map(text.is_plain, names))
        and all(re.fullmatch(r"[\w=+-]([\w .,=+-]*[\w=+-])?", name) for name in names)
        and all(len(name.encode()) <= 200 for name in names)
        and text.are_told_apart([taken, *names])
    )


def _read(path: Path) -> str:
    try:
        source = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start}).") from error
    if not source.strip():
        raise ConfigError(f"{path}: is empty; needs `study = Study(...)`.")
    return source


def _line(error: BaseException, path: Path) -> str:
    """Returns the line of the config file where it happened, as `:12`."""
    if isinstance(error, SyntaxError):
        return f":{error.lineno}" if error.lineno else ""
    lines = [
        at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == str(path)
    ]
    return f":{lines[-1]}" if lines else ""


def _explain(error: BaseException) -> str:
    match = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if isinstance(error, TypeError) and match:
        owner, name = getattr(study, match[1], None), match[2]
        if dataclasses.is_dataclass(owner):
            known = [field.name for field in dataclasses.fields(owner)]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(known)}."
            what = "unknown field" if owner is Study else f"{match[1]} has no field"
            return f"{what} '{name}'. {hint}"
    if isinstance(error, ValueError):
        return str(error)
    return f"{type(error).__name__}: {error}"
