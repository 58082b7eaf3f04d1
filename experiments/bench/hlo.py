"""Work of a compiled program by its optimised HLO: kernels, bytes moved, collectives.

Only main memory counts: an array in on-chip memory (its layout says S(n), on a TPU) is free, and
what is fetched there counts once. Of an array that a kernel only slices, the slice is read; of one
that it updates in place, the update is written.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

Way = Literal["ordinary", "other"]
"""Through what depends on the data: of a conditional the branch that moves fewest bytes, or most;
a loop whose trips the compiler cannot know, never, or once."""

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_FETCHES = ("copy-start", "slice-start")
_SLICES = ("slice", "dynamic-slice", "gather")
_UPDATE = "dynamic-update-slice"
_SAME_ELEMENTS = ("bitcast", "convert", "copy", "reshape")
_FREE = (
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
    "replica-id", "opt-barrier",
)  # fmt: skip
_FREE_TARGETS = ("AllocateBuffer", "ConcatBitcast")
_ENTRY = "ENTRY"

_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) .*-> .*\{$")
_LINE = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(r"\b(?:calls|to_apply)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.\-]+)")
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_BODY = re.compile(r"body=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_INDEX = re.compile(r"index=(\d+)")


class Array(NamedTuple):
    """An operand or a result, or one of several."""

    dtype: str
    """In HLO's words: f32, bf16, pred."""
    shape: tuple[int, ...]
    in_main_memory: bool

    @property
    def bytes(self) -> int:
        bits = re.search(r"\d+", self.dtype)
        return math.prod(self.shape) * (max(1, int(bits[0]) // 8) if bits else 1)


class Kernel(NamedTuple):
    """An operation that runs by itself."""

    operation: str
    read: int
    """Bytes of main memory."""
    written: tuple[Array, ...]
    """In main memory."""
    sent: int
    """Bytes of its operands, wherever they lie: what a collective takes from each device."""
    times: int
    """How often it runs."""


class _Instruction(NamedTuple):
    name: str
    is_root: bool
    results: tuple[Array, ...]
    operation: str
    arguments: str
    attributes: str

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.arguments)

    def find(self, attribute: re.Pattern[str]) -> str:
        match = attribute.search(self.attributes)
        if not match:
            raise ValueError(f"{self.operation} {self.name}: needs {attribute.pattern}.")
        return match[1]


_Computation = Mapping[str, _Instruction]
_Program = Mapping[str, _Computation]


def kernels(text: str, way: Way = "ordinary") -> list[Kernel]:
    """Returns the kernels of the program `text`, which is `jax.stages.Compiled.as_text()`."""
    return _kernels(_parse(text), _ENTRY, way)


def moved(ran: Iterable[Kernel]) -> int:
    """Counts bytes of main memory that `ran` reads and writes."""
    return sum(kernel.times * (kernel.read + _bytes(kernel.written)) for kernel in ran)


def launched(ran: Iterable[Kernel]) -> int:
    """Counts the kernels that run, without collectives and fetches."""
    return sum(k.times for k in ran if k.operation not in _FETCHES and not _collective(k))


def written(ran: Iterable[Kernel], dtype: str, elements: int) -> int:
    """Counts the arrays of `dtype` and at least so many elements that `ran` writes to memory."""
    return sum(
        kernel.times
        for kernel in ran
        for array in kernel.written
        if array.dtype == dtype and math.prod(array.shape) >= elements
    )


def collectives(ran: Iterable[Kernel]) -> Counter[tuple[str, int]]:
    """Counts the collectives of each kind and of each size, in bytes."""
    counts: Counter[tuple[str, int]] = Counter()
    for kernel in ran:
        if kind := _collective(kernel):
            counts[kind, kernel.sent] += kernel.times
    return counts


def _collective(kernel: Kernel) -> str | None:
    kind = kernel.operation.removesuffix("-start")
    return kind if kind in COLLECTIVES else None


def _parse(text: str) -> _Program:
    program: dict[str, dict[str, _Instruction]] = {}
    computation: dict[str, _Instruction] = {}
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        if head := _HEAD.match(line):
            computation = program.setdefault(_ENTRY if head[1] else head[2], {})
        elif match := _LINE.match(line):
            computation[match[2]] = _instruction(bool(match[1]), match[2], match[3])
    return program


def _instruction(is_root: bool, name: str, rest: str) -> _Instruction:
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    types, call = rest[:end], rest[end:].lstrip()
    start = call.index("(")
    end = start + _closing(call[start:])
    return _Instruction(
        name, is_root, _arrays(types), call[:start], call[start + 1 : end - 1], call[end:]
    )


def _closing(text: str) -> int:
    """Finds where what the first parenthesis opens has ended."""
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return i + 1
    raise ValueError(f"a parenthesis is not closed: {text!r}.")


def _arrays(types: str) -> tuple[Array, ...]:
    return tuple(
        Array(dtype, tuple(int(n) for n in sizes.split(",") if n), "S(" not in layout)
        for dtype, sizes, layout in _ARRAY.findall(types)
    )


def _bytes(arrays: Iterable[Array]) -> int:
    """Counts bytes of main memory."""
    return _size(array for array in arrays if array.in_main_memory)


def _size(arrays: Iterable[Array]) -> int:
    return sum(array.bytes for array in arrays)


def _kernels(program: _Program, name: str, way: Way) -> list[Kernel]:
    computation, ran = program[name], []
    for one in computation.values():
        if _is_free(one):
            continue
        if one.operation == "conditional":
            named = " ".join(map(" ".join, _BRANCHES.findall(one.attributes)))
            branches = [_kernels(program, n, way) for n in re.findall(r"[\w.\-]+", named)]
            ran += (min if way == "ordinary" else max)(branches, key=moved)
        elif one.operation == "while":
            trips = _trips(program, computation, one)
            trips = int(way == "other") if trips is None else trips
            for part, times in ((_CONDITION, trips + 1), (_BODY, trips)):
                inner = _kernels(program, one.find(part), way) if times else []
                ran += [kernel._replace(times=kernel.times * times) for kernel in inner]
        elif one.operation in ("call", "async-start"):
            ran += _kernels(program, one.find(_CALLED), way)
        else:
            ran.append(_kernel(program, computation, one))
    return ran


def _is_free(one: _Instruction) -> bool:
    if one.operation == "custom-call":
        return any(f'"{target}"' in one.attributes for target in _FREE_TARGETS)
    return one.operation in _FREE or one.operation.endswith("-done")


def _trips(program: _Program, computation: _Computation, loop: _Instruction) -> int | None:
    """Tells how often `loop` runs, where it counts from one constant up to another, by one.

    The compiler for GPUs writes it down; the one for TPUs leaves it to be seen.
    """
    if known := _TRIPS.search(loop.attributes):
        return int(known[1])
    condition = program[loop.find(_CONDITION)]
    root = _root(condition)
    if root.operation != "compare" or "direction=LT" not in root.attributes:
        return None
    counter, bound = (condition[name] for name in root.operands)
    carry = computation[loop.operands[0]]
    if counter.operation != "get-tuple-element" or carry.operation != "tuple":
        return None
    start = computation[carry.operands[int(counter.find(_INDEX))]]
    start = _source(computation, start, (*_SAME_ELEMENTS, "copy-start", "copy-done"))
    if not start.operation == bound.operation == "constant":
        return None
    return max(0, int(bound.arguments) - int(start.arguments))


def _root(computation: _Computation) -> _Instruction:
    [root] = [one for one in computation.values() if one.is_root]
    return root


def _source(
    computation: _Computation, one: _Instruction, through: Sequence[str] = _SAME_ELEMENTS
) -> _Instruction:
    while one.operation in through:
        one = computation[one.operands[0]]
    return one


def _kernel(program: _Program, computation: _Computation, one: _Instruction) -> Kernel:
    operands = {name: computation[name].results for name in one.operands}
    read = {name: _bytes(arrays) for name, arrays in operands.items()}  # once, however often named
    written = list(one.results)
    if one.operation.endswith("-start") and len(written) > len(one.operands):
        for array in (a for arrays in operands.values() for a in arrays):
            written.remove(array)  # what an asynchronous operation gives begins with what it took
    taken = one.operands[0] if one.operands else ""
    if one.operation.removesuffix("-start") in _SLICES:
        read[taken] = min(read[taken], written[0].bytes)
    elif one.operation == _UPDATE:
        read[taken], written = 0, _updates(computation, one, one.results[0])
    elif one.operation == "fusion":
        fused = program[one.find(_CALLED)]
        for number, name in enumerate(one.operands):
            read[name] = min(read[name], _read_of_parameter(fused, number, read[name]))
        written = _written_by(fused, written)
    return Kernel(
        one.operation,
        sum(read.values()),
        tuple(array for array in written if array.in_main_memory),
        sum(map(_size, operands.values())),
        times=1,
    )


def _read_of_parameter(fused: _Computation, number: int, whole: int) -> int:
    """Counts bytes that a fusion reads of an operand: the `whole` of it, unless it slices."""
    same, read = set(), 0
    for one in fused.values():
        if one.operation == "parameter" and one.arguments == str(number):
            same.add(one.name)
        elif same & set(one.operands):
            if one.operation in _SAME_ELEMENTS:
                same.add(one.name)
            elif one.operation in _SLICES:
                read += _size(one.results)
            elif one.operation != _UPDATE or same & set(one.operands[1:]):
                return whole
    return read


def _written_by(fused: _Computation, results: Sequence[Array]) -> list[Array]:
    root = _root(fused)
    ends = [fused[name] for name in root.operands] if root.operation == "tuple" else [root]
    written: list[Array] = []
    for end, result in zip(ends, results):
        source = _source(fused, end)
        written += _updates(fused, source, result) if source.operation == _UPDATE else [result]
    return written


def _updates(computation: _Computation, one: _Instruction, result: Array) -> list[Array]:
    """Returns what an update in place writes of its `result`."""
    updates = computation[one.operands[1]].results
    return [update._replace(in_main_memory=result.in_main_memory) for update in updates]
