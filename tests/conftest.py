"""Strict rules and four devices for every test: what users switch on must not break the library."""

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

from xla_flags import FLAGS

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# What a worker compiles is there for the processes that it starts; another worker could read a file
# that is half written.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["JAX_COMPILATION_CACHE_DIR"] += f"/{worker}"
elif "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    cache = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jbn-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    atexit.register(shutil.rmtree, cache, ignore_errors=True)

# Modules and programs stay: to look through them for garbage is a tenth of the time of a test.
gc.set_threshold(100_000)

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis.internal.conjecture import providers  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Hypothesis draws numbers that it finds in our source too: what it draws would depend on every edit
# and on what else a worker has imported.
providers.is_local_module_file = lambda path: False

# Beginnings of names, chosen by measured CPU time: the rest takes less than three minutes of it.
SLOW = tuple((Path(__file__).parent / "slow.txt").read_text().split())


def pytest_collection_modifyitems(config, items):
    """Marks the slow tests; leaves out the `long` searches unless `-m` names them."""
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    if "long" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    gc.freeze()


@pytest.fixture
def key():
    return jax.random.key(20150211)
