"""Calls of a norm of either front-end: their arguments, and which statistics they take."""

import inspect
from typing import Any


def call_arguments(layer: Any, args: tuple, kwargs: dict) -> dict[str, Any]:
    """Returns the arguments of a call of `layer` by name, however they were given."""
    return inspect.signature(type(layer).__call__).bind(layer, *args, **kwargs).arguments


def is_frozen(layer: Any, call: dict[str, Any]) -> bool:
    """Returns whether `layer` normalises with its running statistics in a call."""
    given = call.get("use_running_average")
    return bool(layer.use_running_average if given is None else given)
