"""The collectives of a compiled program, and how many elements each carries."""

import math
import re
from typing import NamedTuple

_KINDS = "all-gather|all-reduce|all-to-all|collective-permute|collective-broadcast|reduce-scatter"
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")
_SHAPE = re.compile(r"\b[a-z]+\d*\[([\d,]*)\]")


class Collective(NamedTuple):
    kind: str
    elements: int  # of all its operands or all its results together, whichever are more
    line: str


def _elements(types: str) -> int:
    return sum(math.prod(int(n) for n in shape.split(",") if n) for shape in _SHAPE.findall(types))


def find(text: str) -> list[Collective]:
    """The collectives in optimised HLO, `compiled.as_text()`."""
    instructions = [m.groups() for m in map(_INSTRUCTION.match, text.splitlines()) if m]
    # Names are unique in a program.
    types = {name: result for name, result, _, _ in instructions}
    found = []
    for name, result, operation, rest in instructions:
        if re.fullmatch(f"({_KINDS})(-start)?", operation):
            names = re.findall(r"%([\w.-]+)", rest.split(")")[0])
            operands = " ".join(types.get(operand, "") for operand in names)
            elements = max(_elements(result), _elements(operands))
            found.append(Collective(operation, elements, f"{name} = {result} {operation}({rest}"))
    return found
