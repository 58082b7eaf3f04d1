"""Groups of devices that share a batch: each group is one device with the group's examples."""

import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import jbn
import jbn.linen
import jbn.nnx

VALID = [8, 3, 0, 5]  # rows that count on each device
GROUPS = {
    "pairs": [[0, 1], [2, 3]],
    "interleaved": ((2, 0), (1, 3)),
    "uneven": [[0, 1, 3], [2]],
    "alone": [[0], [1], [2], [3]],
    "all": [[3, 1, 0, 2]],
}


def draw(mean=10.0):
    keys = jax.random.split(jax.random.key(0), 3)
    # Units that differ between devices, so that a part in the wrong group cannot go unnoticed.
    x = mean + jnp.arange(1.0, 5.0)[:, None, None] * jax.random.normal(keys[0], (4, 8, 5))
    mask = jnp.arange(8)[None] < jnp.array(VALID)[:, None]
    ct = jnp.where(mask[..., None], jax.random.normal(keys[1], x.shape), 0)
    affine = jbn.Affine(*(1 + jax.random.normal(keys[2], (2, 5))))
    return jnp.where(mask[..., None], x, jnp.nan), mask, ct, affine


def run(x, mask, ct, affine, **axis):
    """y, new statistics and the gradient of x, of this device's part of the batch."""
    _, stats = jbn.init(5)

    def loss(x):
        y, new = jbn.batch_norm(x, affine, stats, mask=mask, **axis)
        y = jnp.where(mask[..., None], y, 0)
        return jnp.sum(y * ct), (y, new)

    dx, (y, new) = jax.grad(loss, has_aux=True)(x)
    return y, new, dx


of_one = jax.jit(run)


def check_groups(got, x, mask, ct, affine, groups, atol=2e-6):
    y, new, dx = got
    for group in map(np.array, groups):
        whole_y, whole_new, whole_dx = of_one(*(a[group] for a in (x, mask, ct)), affine)
        chex.assert_trees_all_close(y[group], whole_y, atol=atol)
        chex.assert_trees_all_close(dx[group], whole_dx, atol=atol)
        for device in group:
            mine = jax.tree.map(lambda leaf, device=device: leaf[device], new)
            chex.assert_trees_all_close(mine, whole_new, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("name", GROUPS)
def test_vmap(name):
    axis = {"axis_name": "data", "axis_index_groups": GROUPS[name]}
    mapped = jax.jit(jax.vmap(partial(run, **axis), (0, 0, 0, None), axis_name="data"))
    for mean in (0.0, 1e4) if name in ("pairs", "uneven") else (0.0,):
        args = draw(mean)
        check_groups(mapped(*args), *args, GROUPS[name])


@pytest.mark.parametrize("name", GROUPS)
def test_shard_map(name):
    x, mask, ct, affine = draw()
    axis = {"axis_name": "data", "axis_index_groups": GROUPS[name]}

    def part(x, mask, ct, affine):
        out = run(x[0], mask[0], ct[0], affine, **axis)
        return jax.tree.map(lambda leaf: leaf[None], out)

    rows = P("data")
    sharded = jax.shard_map(
        part,
        mesh=Mesh(np.array(jax.devices()[:4]), ("data",)),
        in_specs=(rows, rows, rows, P()),
        out_specs=rows,
    )
    program = jax.jit(sharded).lower(x, mask, ct, affine).compile()
    check_groups(program(x, mask, ct, affine), x, mask, ct, affine, GROUPS[name])
    collectives = re.findall(r" (all-reduce|all-gather|collective-permute)\(", program.as_text())
    assert len(collectives) == 2  # one forward, one backward


@pytest.mark.parametrize("groups", [None, GROUPS["pairs"]])
def test_pmap(groups):
    x, mask, ct, affine = draw()
    axis = {"axis_name": "data", "axis_index_groups": groups}
    mapped = jax.pmap(lambda *args: run(*args, affine, **axis), axis_name="data")
    check_groups(mapped(x, mask, ct), x, mask, ct, affine, groups or GROUPS["all"])


def test_a_nan_in_one_group_stays_there():
    x, mask, ct, affine = draw()
    groups = GROUPS["pairs"]
    mapped = jax.jit(
        jax.vmap(
            lambda *args: run(*args, affine, axis_name="data", axis_index_groups=groups),
            axis_name="data",
        )
    )
    bad = jax.tree.map(lambda leaf: leaf[:2], mapped(x.at[3, 0].set(jnp.nan), mask, ct))
    chex.assert_trees_all_equal(bad, jax.tree.map(lambda leaf: leaf[:2], mapped(x, mask, ct)))


def test_sync_moments_takes_groups():
    x, mask, _, _ = draw()

    def part(x, mask):
        moments = jbn.batch_moments(x, mask=mask)
        return jbn.sync_moments(moments, "data", axis_index_groups=[[0, 3], [1, 2]])

    synced = jax.vmap(part, axis_name="data")(x, mask)
    for device, group in enumerate(([0, 3], [1, 2], [1, 2], [0, 3])):
        group = np.array(group)
        expected = jbn.batch_moments(x[group], mask=mask[group])
        mine = jax.tree.map(lambda leaf, device=device: leaf[device], synced)
        chex.assert_trees_all_close(mine, expected, rtol=1e-5, atol=1e-7)


def test_both_layers_take_groups(key):
    x = jax.random.normal(key, (4, 8, 5))
    options = {"axis_name": "data", "axis_index_groups": GROUPS["pairs"], "momentum": 0.0}
    linen = jbn.linen.BatchNorm(use_running_average=False, **options)
    variables = linen.init(key, x[0])

    def part(x):
        y, updates = linen.apply(variables, x, mutable=["batch_stats"])
        return y, updates["batch_stats"]["var"]

    y, var = jax.vmap(part, axis_name="data")(x)
    np.testing.assert_allclose(var[3], x[2:].var((0, 1)), rtol=1e-5)

    @nnx.vmap(in_axes=(None, 0), axis_name="data")
    def nnx_part(layer, x):
        return nnx.clone(layer)(x)

    layer = jbn.nnx.BatchNorm(5, rngs=nnx.Rngs(0), **options)
    chex.assert_trees_all_equal(nnx_part(layer, x), y)


@pytest.mark.parametrize("groups", [[[0, 1]], [[0, 1], [1, 2, 3]], [[0, 1], [2, 3, 4]], [[]]])
def test_groups_must_divide_the_axis(groups):
    x, mask, ct, affine = draw()
    mapped = jax.vmap(
        lambda *args: run(*args, affine, axis_name="data", axis_index_groups=groups),
        axis_name="data",
    )
    with pytest.raises(ValueError, match="each of the indices 0 to 3 of axis_name='data' exactly"):
        mapped(x, mask, ct)
    with pytest.raises(ValueError, match="give axis_name too"):
        run(x[0], mask[0], ct[0], affine, axis_index_groups=groups)
