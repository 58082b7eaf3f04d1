"""Values of a config: printing them, checking them, and errors of the user's code in one line."""

import dataclasses
import functools
import json
import math
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.study.data import DataError


class ConfigError(ValueError):
    """A config that cannot be used, here at least; the message is one line."""


def show(value: Any) -> str:
    """Returns `value` as a config would write it: the same text in every process.

    Of dataclasses and Flax modules only the fields that are not their defaults are written, of
    functions and classes only the name.

    >>> import flax.linen as nn
    >>> show({"group": nn.GroupNorm(8), "wide": (1, 2.5), "relu": nn.relu})
    '{"group": GroupNorm(num_groups=8), "wide": (1, 2.5), "relu": relu}'
    """
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=not value.isprintable())
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{show(k)}: {show(v)}" for k, v in value.items()) + "}"
    if type(value) is tuple:
        return f"({', '.join(map(show, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(map(show, value))}]"
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return f"key({jax.random.key_data(value).tolist()})"
    if isinstance(value, np.ndarray | jax.Array):
        return f"array({value.dtype}{list(value.shape)})" if value.size > 8 else str(value.tolist())
    if isinstance(value, Path):
        return show(str(value))
    if isinstance(value, functools.partial):
        words = [show(value.func), *map(show, value.args)]
        return f"partial({', '.join([*words, *_options(value.keywords)])})"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}({', '.join(_arguments(value))})"
    if callable(value) and hasattr(value, "__qualname__"):
        return value.__qualname__
    # An address would be another one in the next process.
    return " ".join(re.sub(r" at 0x[0-9a-f]+", "", repr(value)).split())


def _arguments(value: Any) -> list[str]:
    """Returns the fields of a dataclass that are not their defaults, those without one unnamed."""
    required, changed = [], {}
    for field in dataclasses.fields(value):
        own = getattr(value, field.name)
        # Flax gives every module a parent and a name.
        is_flaxs = isinstance(value, nn.Module) and field.name in ("parent", "name")
        if is_flaxs or not (field.init and field.repr):
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if default is dataclasses.MISSING:
            required.append(show(own))
        elif show(own) != show(default):
            changed[field.name] = own
    return [*required, *_options(changed)]


def _options(options: Mapping[str, Any]) -> list[str]:
    return [f"{name}={show(value)}" for name, value in options.items()]


@contextmanager
def blame(code: str) -> Iterator[None]:
    """Turns what code of the user's raises into one line: `code`, the error, its file and line.

    Raises:
        ConfigError: with that line; of our own errors, which are one line already, as they are.
    """
    try:
        yield
    except (ConfigError, DataError):
        raise
    except Exception as error:
        raise ConfigError(f"{code}: {explain(error)}") from error


def explain(error: Exception) -> str:
    """Returns an error's type and first sentence, and the user's line that it came from."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    frames = [at for at in traceback.extract_tb(error.__traceback__) if _is_users(at.filename)]
    return f"{text} ({frames[-1].filename}:{frames[-1].lineno})" if frames else text


_NOT_USERS = (
    str(Path(__file__).parents[1]),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
    *(path for path in sys.path if path.endswith("-packages")),
    "<",
)


def _is_users(filename: str) -> bool:
    return not filename.startswith(_NOT_USERS)


def check(owner: Any, field: str, allows: Callable[[Any], bool], allowed: str) -> None:
    """Checks a field of `owner`, and makes numbers Python's numbers and sequences tuples.

    Raises:
        ConfigError: naming the field, its value and what is allowed.
    """
    given = getattr(owner, field)
    value = as_python(given)
    if value is not given:
        object.__setattr__(owner, field, value)
    if not allows(value):
        raise ConfigError(f"{field}={show(value)}: needs {allowed}.")


def as_python(value: Any) -> Any:
    """Returns NumPy's numbers, and lists, tuples and vectors of numbers, as Python's."""
    if isinstance(value, np.number | np.bool_):
        return value.item()
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "biuf":
        return tuple(value.tolist())
    numbers = (int, float, np.number)
    if isinstance(value, list) and all(isinstance(each, numbers) for each in value):
        return tuple(map(as_python, value))
    if isinstance(value, tuple) and any(isinstance(each, np.number) for each in value):
        return tuple(map(as_python, value))
    return value


def check_flags(owner: Any, *fields: str) -> None:
    """Checks that fields of `owner` are True or False, as `check` does."""
    for field in fields:
        check(owner, field, lambda flag: isinstance(flag, bool), "True or False")


def is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


LARGEST_WHOLE = 2**31 - 1  # of a program's integers


def whole(lowest: int, highest: float = LARGEST_WHOLE) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and lowest <= value <= highest


def real(value: Any) -> bool:
    """Tells whether `value` is a number, and one as float32 too."""
    if type(value) not in (int, float) or not math.isfinite(value):
        return False
    return value == 0 or float(np.finfo(np.float32).tiny) <= abs(value) <= 3e38


def positive(value: Any) -> bool:
    return real(value) and value > 0


def not_negative(value: Any) -> bool:
    return real(value) and value >= 0


def fraction(value: Any) -> bool:
    return real(value) and 0 <= value <= 1


def below_one(value: Any) -> bool:
    return fraction(value) and value < 1


def one_or_several(allows: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: allows(value) or tuple_of(allows, distinct=True)(value)


def tuple_of(allows: Callable[[Any], bool], *, distinct: bool = False) -> Callable[[Any], bool]:
    """Tells whether a value is a tuple of what `allows` allows; `distinct` also as float32."""

    def is_one(value: Any) -> bool:
        if not (isinstance(value, tuple) and value and all(map(allows, value))):
            return False
        return not distinct or len(set(map(np.float32, value))) == len(value)

    return is_one
