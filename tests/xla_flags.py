"""XLA's flags for tests: four devices, and programs that take a third of the time to compile."""

from importlib.metadata import version

# Compilation is most of the suite's time; this spares the code generator's part of it. The
# benchmarks check the same accuracy with everything switched on.
FLAGS = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
FLAGS += " --xla_cpu_parallel_codegen_split_count=1"  # small programs cost more in parts
if version("jaxlib").startswith("0.10."):
    FLAGS += " --xla_cpu_use_fusion_emitters=false"  # a flag of that version
