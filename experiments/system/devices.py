"""Environment before JAX is first imported: devices, and how memory is kept."""

import os
import platform
import sys
from contextlib import suppress
from typing import Any

import pooch

_COUNT = "--xla_force_host_platform_device_count"
# A device then runs on one thread: handing a layer of a hundred units to more costs more than it.
_SINGLE = "--xla_cpu_multi_thread_eigen=false"
# LLVM prefers half of what AVX-512 has; training then takes a fifteenth longer.
_WIDE = "--xla_cpu_prefer_vector_width=512"
# At 0 many programs run so slowly that nothing is gained.
_QUICKLY = "--xla_backend_optimization_level=1"

# glibc gives every array of 32 MiB or more back to the system when it is freed, and the next one
# of that size costs thousands of page faults: more than normalising it does.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
# Arrays that large find room in the first arena alone. Small ones, on several devices at once, wait
# for each other there: a step of a small network then takes a third longer.
ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
# In pages of 2 MiB, for the random rows of a batch: a page of 4 KiB is another one for each image,
# and the processor has forgotten where it lies.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

# A TPU's compiler would ask the network which machine it is on, wait, and complain; and it would be
# one process's alone, as a TPU is.
_ABSENT = {
    "JAX_PLATFORMS": "cpu",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


def use_all_cores() -> None:
    """Makes every core a device, unless XLA_FLAGS already says how many there are.

    Accelerators, where there are any, are used instead and do not notice.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _COUNT not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_COUNT}={cores()} {_SINGLE} {_WIDE}".strip()


def compile_quickly() -> None:
    """Has XLA optimise less: for programs that take longer to compile than to run."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_QUICKLY}".strip()


def compile_for_absent_chips() -> None:
    """Has JAX run on the CPU, and the compilers for TPUs and GPUs look for no such chip."""
    os.environ.update(_ABSENT)


def keep_freed_memory(*, one_arena: bool) -> None:
    """Starts this program anew with `MALLOC` in its environment, where glibc is what reads it.

    With `one_arena` for large arrays on one device, without it for small ones on several.

    Call it first thing: what the process has done so far is lost. What the environment already
    says about one of these stays.
    """
    settings = MALLOC | (ONE_ARENA if one_arena else HUGE_PAGES)
    if platform.libc_ver()[0] == "glibc" and not settings.keys() <= os.environ.keys():
        os.environ.update(settings | os.environ)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


class DeviceError(RuntimeError):
    """Devices that were asked for and are not there; the message is one line."""


def find_devices() -> None:
    """Has JAX look for its devices now.

    Raises:
        DeviceError: when JAX_PLATFORMS names some that it does not find.
    """
    import jax

    try:
        jax.devices()
    except RuntimeError as error:
        asked = os.environ.get("JAX_PLATFORMS", "")
        reason = str(error).splitlines()[0]
        raise DeviceError(
            f"JAX_PLATFORMS={asked}: JAX finds no such device ({reason}). Unset it, or install "
            "what JAX needs for it."
        ) from error


def keep_compiled() -> None:
    """Keeps compiled programs for later processes in the user's cache, on an accelerator.

    Unless JAX_COMPILATION_CACHE_DIR says where, or the user has no home. Some CPUs refuse what they
    compiled themselves (https://github.com/jax-ml/jax/issues/38445).
    """
    import jax

    config: Any = jax.config
    if jax.default_backend() != "cpu" and not config.jax_compilation_cache_dir:
        with suppress(RuntimeError):
            config.update("jax_compilation_cache_dir", str(pooch.os_cache("jbn") / "compiled"))


def cores() -> int:
    """Returns the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
