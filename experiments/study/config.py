"""What a study is: one frozen value, checked field by field, that a file in `configs/` builds.

A config file is Python that defines `study = Study(...)`, or several `studies` by name; the command
line overrides their fields by name. A mistake is one line that says which field, what came and what
is allowed.
"""

import dataclasses
import difflib
import itertools
import math
import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import tyro

from experiments.system import text
from jbn import Variant

Data = Literal["digits", "mnist", "binary-mnist"]
Activation = Literal["sigmoid", "tanh", "relu", "gelu"]
Optimizer = Literal["sgd", "momentum", "adam"]
Schedule = Literal["constant", "cosine"]

# The numbers that a program can be given: what else differs, it must be compiled for.
SWEPT = ("init_std", "momentum", "epsilon")

LARGEST_SEED = 2**31 - 1  # the largest integer a netCDF-3 coordinate holds


class ConfigError(ValueError):
    """A config that cannot be used, here at least; the message is one line."""


@dataclass(frozen=True)
class Study:
    """Networks that differ in their norm alone, trained at every learning rate from every seed.

    Where `init_std`, `momentum` or `epsilon` has several values, each of the `norms` stands for as
    many networks, one for each value that it can notice: one program trains them all.

    Raises:
        ValueError: for a field of the wrong type or out of range, naming field, value and allowed.
    """

    name: str
    """Short name, for titles."""

    claim: str
    """The sentence that the study tests."""

    data: Data
    """Which images: scikit-learn's 8x8 digits (nothing to download), MNIST, or MNIST in black and
    white."""

    norms: tyro.conf.Suppress[Mapping[str, Variant | None]]
    """What is compared: a label for each network and its batch norm, None for a network without.
    Set in the config file."""

    widths: tuple[int, ...]
    """Units of each hidden layer."""

    activation: Activation
    """Nonlinearity of the hidden layers."""

    optimizer: Optimizer
    """sgd, momentum (SGD with heavy-ball momentum 0.9) or adam."""

    learning_rates: tuple[float, ...]
    """Every network is trained at each of these."""

    seeds: tuple[int, ...]
    """Every network is trained from each of these: a seed fixes initial weights and batches."""

    batch_size: int
    """Training examples per step, drawn with replacement."""

    steps: int
    """Training steps of each run."""

    evaluate_every: int
    """Steps between evaluations, at least 2; divides `steps`."""

    schedule: Schedule = "constant"
    """The learning rate over the steps: constant, or falling to zero along half a cosine."""

    init_std: float | tuple[float, ...] | None = None
    """Standard deviation of the Gaussian initial kernels; None for He's (relu, gelu) or LeCun's.
    One value, or several to compare."""

    momentum: float | tuple[float, ...] = 0.99
    """Weight that batch norm's running statistics keep on the old value; one or several."""

    epsilon: float | tuple[float, ...] = 1e-5
    """Added to the variance before the square root; one or several."""

    data_parallel: bool = False
    """Spread each batch over the devices, and batch norm's moments with it, instead of the runs:
    for batches that are too large for one. The number of devices divides `batch_size`."""

    def __post_init__(self) -> None:
        _check(self, "name", text.is_plain, text.PLAIN)
        _check(self, "claim", text.is_plain, text.PLAIN)
        _check(
            self,
            "norms",
            _is_norms,
            "a mapping of labels to variants such as Standard(), hashable and with a method "
            "population(), or None",
        )
        for field, choices in _CHOICES.items():
            _check(self, field, get_args(choices).__contains__, f"one of {get_args(choices)}")
        _check(self, "widths", _tuple_of(_whole(1)), "a tuple of whole numbers from 1")
        _check(self, "batch_size", _whole(2), "a whole number from 2: one example has no variance")
        _check(self, "steps", _whole(1), "a whole number from 1")
        _check(self, "evaluate_every", _whole(2), "a whole number from 2, to compare gradients")
        divides = f"a divisor of steps={self.steps}"
        _check(self, "evaluate_every", lambda window: self.steps % window == 0, divides)
        _check(
            self,
            "learning_rates",
            _tuple_of(_positive, distinct=True),
            "a tuple of distinct positive numbers",
        )
        _check(
            self,
            "seeds",
            _tuple_of(_seed, distinct=True),
            "a tuple of distinct whole numbers from 0",
        )
        _check(
            self,
            "init_std",
            lambda x: x is None or _one_or_several(_positive)(x),
            f"a positive number, {_SEVERAL}, or None",
        )
        _check(self, "momentum", _one_or_several(_fraction), f"a number from 0 to 1, {_SEVERAL}")
        _check(self, "epsilon", _one_or_several(_positive), f"a positive number, {_SEVERAL}")
        _check(self, "norms", text.are_labels, text.LABELS)
        _check(self, "norms", lambda _: _are_told_apart(self), "labels that no network has")
        _check(self, "data_parallel", lambda x: isinstance(x, bool), "True or False")
        _check(
            self,
            "data_parallel",
            lambda x: not (x and any(map(_is_random, self.norms.values()))),
            "norms without a key such as Noisy's: its noise would be the same on every device",
        )


DEFAULTS = {
    field.name: field.default
    for field in dataclasses.fields(Study)
    if field.default is not dataclasses.MISSING
}


def swept(study: Mapping[str, Any], norm: object) -> list[dict[str, float]]:
    """What tells the networks apart that one of the norms stands for: a value for each field.

    Every combination of what SWEPT has several values of; one without any where there are none. A
    network without norm has no `momentum` and no `epsilon`. The fields of `study` are as the study
    has them, `vars(study)`, or as JSON does.
    """
    fields = [field for field in SWEPT if norm is not None or field == "init_std"]
    several = {f: study[f] for f in fields if isinstance(study.get(f), tuple | list)}
    return [dict(zip(several, values)) for values in itertools.product(*several.values())]


def networks(study: Study) -> dict[str, tuple[str, dict[str, float]]]:
    """All networks of `study` by name: the label in `norms` with `swept` values, and the two."""
    found = {}
    for label, norm in study.norms.items():
        for values in swept(vars(study), norm):
            found[name_of(label, values)] = label, values
    return found


def name_of(label: str, values: Mapping[str, float]) -> str:
    """A network's name: `batch norm, epsilon=0.1`."""
    return ", ".join([label, *(f"{field}={value!r}" for field, value in values.items())])


def load_studies(path: Path) -> dict[str, Study]:
    """What the Python file at `path` defines, by the folder that each study goes to.

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
    for name, study in several.items():
        if not isinstance(study, Study):
            found = "nothing of that name" if study is None else f"a {type(study).__name__}"
            what = f"studies[{name!r}] to be a Study" if name else "`study = Study(...)`"
            raise ConfigError(f"{path}: needs {what}, found {found}.")
    return dict(several)


def override(studies: Mapping[str, Study], shown: Study, chosen: Study) -> dict[str, Study]:
    """`studies` with those fields of `chosen` that are not as they were `shown`.

    Raises:
        ValueError: when one of them cannot have such a field.
    """
    changed = {
        field.name: getattr(chosen, field.name)
        for field in dataclasses.fields(Study)
        if getattr(chosen, field.name) != getattr(shown, field.name)
    }
    return {name: dataclasses.replace(study, **changed) for name, study in studies.items()}


def as_json(study: Study) -> dict[str, Any]:
    """The fields as JSON holds them; a variant is written as it prints."""
    fields = {field.name: getattr(study, field.name) for field in dataclasses.fields(study)}
    norms = {label: None if norm is None else repr(norm) for label, norm in study.norms.items()}
    return fields | {"norms": norms}


_SEVERAL = "or a tuple of distinct ones"
_CHOICES = {
    "data": Data,
    "activation": Activation,
    "optimizer": Optimizer,
    "schedule": Schedule,
}


def _check(study: Study, field: str, allows: Callable[[Any], bool], allowed: str) -> None:
    value = getattr(study, field)
    if not allows(value):
        raise ValueError(f"{field}={value!r}: needs {allowed}.")


def _are_folders(names: list[Any]) -> bool:
    taken = "comparison.html"
    return (
        all(map(text.is_plain, names))
        and all(re.fullmatch(r"[\w=+-]([\w .,=+-]*[\w=+-])?", name) for name in names)
        and all(len(name.encode()) <= 200 for name in names)
        and text.are_told_apart([taken, *names])
    )


def _is_norms(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(norm is None or _is_variant(norm) for norm in value.values())
    )


def _is_variant(value: Any) -> bool:
    # The class itself, Standard for Standard(), has the methods too.
    return isinstance(value, Variant) and not isinstance(value, type)


def _is_random(norm: Any) -> bool:
    """Whether a key of `jax.random` is part of `norm`."""
    arrays = [leaf for leaf in jax.tree.leaves(norm) if isinstance(leaf, jax.Array)]
    return any(jnp.issubdtype(array.dtype, jax.dtypes.prng_key) for array in arrays)


def _whole(lowest: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= lowest


def _seed(value: Any) -> bool:
    return _whole(0)(value) and value <= LARGEST_SEED


def _real(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _real(value) and value > 0


def _fraction(value: Any) -> bool:
    return _real(value) and 0 <= value <= 1


def _one_or_several(allows: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: allows(value) or _tuple_of(allows, distinct=True)(value)


def _are_told_apart(study: Study) -> bool:
    expected = sum(len(swept(vars(study), norm)) for norm in study.norms.values())
    return len(networks(study)) == expected


def _tuple_of(allows: Callable[[Any], bool], *, distinct: bool = False) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if not (isinstance(value, tuple) and value and all(map(allows, value))):
            return False
        return not distinct or len(set(value)) == len(value)

    return check


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
    """Where in the config file it happened, as `:12`."""
    if isinstance(error, SyntaxError):
        return f":{error.lineno}" if error.lineno else ""
    lines = [
        at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == str(path)
    ]
    return f":{lines[-1]}" if lines else ""


def _explain(error: BaseException) -> str:
    match = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if isinstance(error, TypeError) and match:
        known = [field.name for field in dataclasses.fields(Study)]
        close = difflib.get_close_matches(match[1], known, n=1)
        hint = f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(known)}."
        return f"unknown field '{match[1]}'. {hint}"
    if isinstance(error, ValueError):
        return str(error)
    return f"{type(error).__name__}: {error}"
