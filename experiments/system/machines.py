"""Several processes, on one machine or many, that carry out one study together.

JAX makes one program of them, over all their devices. The rest is here and in `meeting`: how they
decide alike, and how they end alike. Process 0 alone has the folder, and alone speaks. Where there
is only one process, nothing here does anything.
"""

import os
import sys
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from experiments.system.devices import find_devices
from experiments.system.meeting import MachinesError, Meeting, meet, without_proxies

# What started this process, and started how many: Slurm's srun, Open MPI, MPICH and its kin.
_LAUNCHED = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
_INDEXED_JOB = "JOB_COMPLETION_INDEX"  # Kubernetes

_BLOCK = 1024
_FAILED = 1


class _Elsewhere(SystemExit):
    """Another process ends, with this status; it has said why."""


def join(meeting: Meeting, say: Callable[[str], None]) -> None:
    """Joins this process to the others of `meeting`, or to those of a cluster that JAX knows.

    Must come before JAX is used for anything else.

    Raises:
        MachinesError: when `meeting` is incomplete or wrong, or nobody comes.
        DeviceError: when the devices that were asked for are not there.
    """
    # JAX would take SIGTERM for its own, and `interrupts` listens to it.
    config: Any = jax.config
    config.update("jax_enable_preemption_service", False)
    if meeting == Meeting(None, None, None):
        _join_cluster()
    else:
        meet(meeting, say)
    find_devices()
    if not several():
        return
    if not is_first():  # what libraries print, too
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    counts = Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        part()  # nobody leaves before all have counted
        if not is_first():
            raise SystemExit(2)
        each = ", ".join(f"{count} in process {index}" for index, count in sorted(counts.items()))
        raise MachinesError(f"Every process needs as many devices as the others, found {each}.")


def several() -> bool:
    """Tells whether this process is one of several that still need each other."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Tells whether this process is the one that reads, writes and speaks."""
    return jax.process_index() == 0


def agree(number: int) -> int:
    """Returns the largest `number` of any process; ends this one where another has failed.

    All processes must call it, and in the same order as everything else that brings them together.
    """
    return _meet(number)


def on_first(act: Callable[[], object]) -> None:
    """Has process 0 do `act`; the others go on when it has."""
    if is_first():
        act()
    agree(0)


def from_first(make: Callable[[], bytes]) -> bytes:
    """Returns in all processes what `make` returns in process 0. The others do not call it."""
    content = make() if is_first() else b""
    if not several():
        return content
    # Two numbers, since one of 32 bits ends at 2 GiB.
    size = agree(len(content) // _BLOCK) * _BLOCK + agree(len(content) % _BLOCK)
    buffer = np.zeros(size, np.uint8)
    buffer[: len(content)] = np.frombuffer(content, np.uint8)
    # As bytes: the sum that brings numbers over makes 0.0 of -0.0.
    return multihost_utils.broadcast_one_to_all(buffer).tobytes()


def check_same(kind: str, *contents: bytes | memoryview) -> None:
    """Checks that all processes were given the same `contents`.

    Raises:
        MachinesError: in process 0, when they were not; the others end with it.
    """
    agree(0)
    if not several():
        return
    crc = 0
    for content in contents:
        crc = zlib.crc32(content, crc)
    crcs = multihost_utils.process_allgather(np.array(crc, np.uint32))
    if is_first() and (others := np.flatnonzero(crcs != crc)).size:
        raise MachinesError(
            f"Process {others[0]} was given {kind} other than process 0: give all of them the same."
        )
    agree(0)


def fetch(tree: Any) -> Any:
    """Returns the arrays of `tree`, wherever their parts lie, on this machine as numpy's."""
    if several():
        tree = multihost_utils.process_allgather(tree, tiled=True)
    return jax.device_get(tree)


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Puts `tree`, of which every process has all, on the devices of `sharding`."""
    if not several():
        return jax.device_put(tree, sharding)

    def spread(leaf: Any) -> jax.Array:
        whole = np.asarray(leaf)
        whole = whole.astype(jax.dtypes.canonicalize_dtype(whole.dtype), copy=False)
        return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])

    return jax.tree.map(spread, tree)


def part() -> None:
    """Leaves the others when all have come here: from then on this process needs none."""
    jax.distributed.shutdown()


@contextmanager
def together() -> Iterator[None]:
    """Ends all processes with the status of one that exits within it.

    They leave where they next `agree`, in whatever here brings them together but `fetch`. What is
    no exit, a bug or the end of another process, ends this one at once, and JAX then ends the
    others: no one knows where they wait.
    """
    try:
        yield
        part()
    except _Elsewhere:
        part()
        raise
    except SystemExit as end:
        if several():
            try:
                _meet(0, end.code if isinstance(end.code, int) else _FAILED)
                part()
            except (jax.errors.JaxRuntimeError, ValueError) as error:
                _die(error)
        raise
    except BaseException as error:
        if several():
            _die(error)
        raise


def _join_cluster() -> None:
    config: Any = jax.config
    launched = [name for name in _LAUNCHED if os.environ.get(name, "1") not in ("", "0", "1")]
    if _INDEXED_JOB in os.environ:
        launched.append(_INDEXED_JOB)
    # On a TPU's machine JAX puts it there, unless the user has chosen.
    on_tpu = "tpu" in (config.jax_platforms or "")
    # Elsewhere JAX is not asked: in a shell of one Slurm task it would leave one GPU of several,
    # and in any pod of Kubernetes it would warn.
    if not (launched or on_tpu):
        return
    try:
        with without_proxies():
            jax.distributed.initialize()
    except Exception as error:
        if launched:
            raise MachinesError(
                f"{launched[0]}={os.environ[launched[0]]} says that this process is one of "
                f"several, and JAX cannot find the others ({error}). Give --coordinator, "
                "--num-processes and --process-id."
            ) from error


def _meet(number: int, status: int = 0) -> int:
    if not several():
        return number
    pair = np.array([number, status], np.int32)
    numbers, statuses = multihost_utils.process_allgather(pair).T
    if status == 0 and statuses.any():
        raise _Elsewhere(int(statuses.max()))
    return int(numbers.max())


def _die(error: BaseException) -> NoReturn:
    # A CPU that is one device computes at once, and says the same by another name.
    if isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error):
        reason = str(error).splitlines()[0]
        print(
            f"Process {jax.process_index()} cannot go on: {reason}. If another process is gone, "
            "see what it said; the same command, given to all, goes on from the last checkpoint.",
            file=sys.stderr,
        )
    else:
        traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(_FAILED)
