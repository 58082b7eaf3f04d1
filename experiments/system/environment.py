"""Versions, devices and settings that a number may depend on."""

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from experiments.system.devices import HUGE_PAGES, MALLOC, ONE_ARENA, cores
from jbn._numerics import columns

PACKAGES = (
    "jbn", "jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "flax", "dm-haiku", "equinox", "keras",
    "torch", "optax", "numpy",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Describes what the numbers of a study may depend on besides its config."""
    device = jax.devices()[0]
    packages = ("jbn", "jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "versions": {
            "python": platform.python_version(),
            **{package: _version(package) or "not installed" for package in packages},
        },
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def conditions(command: str) -> list[str]:
    """Describes what the numbers of a benchmark may depend on, a line each."""
    device = jax.devices()[0]
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {version}" for name in PACKAGES if (version := _version(name))]
    chosen = (*ONE_ARENA, *HUGE_PAGES, *MALLOC, "XLA_FLAGS")
    settings = {name: os.environ[name] for name in chosen if name in os.environ}
    return [
        f"Command: `{command}`",
        f"Date: {datetime.datetime.now(datetime.UTC).date()}",
        f"Machine: {_processor()}, {cores()} cores"
        + ("" if device.platform == "cpu" else f"; {device.device_kind}"),
        f"Versions: {', '.join(versions)}",
        f"jbn's sums over a batch: {'native, by make fast' if columns.BUILT else 'by XLA'}",
        "Environment: "
        + (" ".join(f"{name}={value}" for name, value in settings.items()) or "nothing set"),
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # run from the source, not installed
        return None
