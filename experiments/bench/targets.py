"""Chips to compile for that are not here: a TPU v5e and an H100, one or four of either.

JAX is imported late: `compile_for_absent_chips` comes before it.
"""

import importlib
from collections.abc import Sequence
from typing import Any, Literal

Target = Literal["tpu", "h100"]

TITLES: dict[Target, str] = {"tpu": "TPU v5e", "h100": "H100"}
PACKAGES: dict[Target, str] = {"tpu": "libtpu", "h100": "jax_plugins.xla_cuda12"}

# What XLA asks of a GPU before it compiles for one.
_H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_core: 233472
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  l2_cache_size: 52428800
  device_memory_size: 84978958336
  memory_bandwidth: 3352320000000
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


class TargetError(RuntimeError):
    """A compiler that is not installed; the message is one line."""


def devices(target: Target, count: int) -> Sequence[Any]:
    """Returns `count` devices of `target`, to compile programs for and not to run them on.

    Raises:
        TargetError: when the package that compiles for `target` is not installed.
    """
    try:
        importlib.import_module(PACKAGES[target])
    except ImportError as error:
        raise TargetError(
            f"{TITLES[target]}: compiling for it needs {PACKAGES[target]} ({error}): in an "
            "environment of its own, pip install -c constraints.txt -e '.[aot]'; or name other "
            "--targets."
        ) from error
    import jax
    from jax.experimental import topologies

    if target == "tpu":
        return topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[:count]
    jax.devices()  # JAX then has the plugin registered
    shape = f"1x{count}x1"
    return topologies.get_topology_desc(
        platform="cuda", topology_name=shape, topology=shape, target_config=_H100
    ).devices
