"""Two real processes, each with its part of the batch, give what one gives with all of it."""

import os
import socket
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np

import jbn

# Process 0 has 6 rows that count, process 1 has 1 of its 6.
WORKER = """
import sys
import jax
port, index, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=index)
import jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from test_processes import draw, run
mesh = Mesh(np.array(jax.devices()), ("data",))
rows = NamedSharding(mesh, P("data"))
x, mask, ct = (
    jax.make_array_from_process_local_data(rows, part[6 * index : 6 * index + 6])
    for part in draw()
)
spec = P("data")
sharded = jax.shard_map(
    lambda *args: run(*args, axis_name="data"),
    mesh=mesh, in_specs=(spec, spec, spec), out_specs=(spec, spec, P(), P()),
)
y, dx, stats, daffine = jax.jit(sharded)(x, mask, ct)
local = [np.concatenate([s.data for s in a.addressable_shards]) for a in (y, dx)]
whole = [np.asarray(leaf.addressable_data(0)) for leaf in (*stats, *daffine)]
np.savez(out, *local, *whole)
"""


def draw():
    rng = np.random.default_rng(0)
    x = rng.normal(1e3, 1, (12, 4)).astype(np.float32)
    mask = np.arange(12) < 7
    return np.where(mask[:, None], x, np.nan), mask, rng.normal(size=(12, 4)).astype(np.float32)


def run(x, mask, ct, axis_name=None):
    affine, stats = jbn.init(4)
    ct = jnp.where(mask[:, None], ct, 0)

    def loss(x, affine):
        y, new = jbn.batch_norm(x, affine, stats, mask=mask, axis_name=axis_name)
        return jnp.sum(y * ct), (jnp.where(mask[:, None], y, 0), new)

    (dx, daffine), (y, new) = jax.grad(loss, (0, 1), has_aux=True)(x, affine)
    return y, dx, new, daffine


def test_two_processes_are_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1",
        "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
    }
    outs = [tmp_path / f"{index}.npz" for index in range(2)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, port, str(index), str(out)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, out in enumerate(outs)
    ]
    errors = [worker.communicate(timeout=120)[1] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), errors

    (y0, dx0, *shared), (y1, dx1, *same) = (np.load(out).values() for out in outs)
    chex.assert_trees_all_equal(shared, same)
    y, dx, stats, daffine = run(*map(jnp.asarray, draw()))
    chex.assert_trees_all_close(np.concatenate([y0, y1]), y, atol=1e-6)
    chex.assert_trees_all_close(np.concatenate([dx0, dx1]), dx, atol=1e-6)
    chex.assert_trees_all_close(shared, [*stats, *daffine], rtol=1e-6, atol=1e-6)
