"""Parts of a batch on several devices give what the whole batch gives on one."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jbn

VALID = [8, 8, 7, 5, 3, 2, 1, 8]  # rows that count on each device
FEATURES = 5


def draw(mean=10.0, rows=8, valid=VALID):
    keys = jax.random.split(jax.random.key(0), 4)
    parts = len(valid)
    x = mean + jax.random.normal(keys[0], (parts * rows, FEATURES))
    mask = jnp.concatenate([jnp.arange(rows) < n * rows // 8 for n in valid])
    ct = jax.random.normal(keys[1], x.shape)
    affine = jbn.Affine(*(1 + jax.random.normal(keys[2], (2, FEATURES))))
    return jnp.where(mask[:, None], x, jnp.nan), mask, jnp.where(mask[:, None], ct, 0), affine


def run(x, mask, ct, affine, axis_name=None):
    """y, new statistics and all gradients, of this device's part of the batch."""
    _, stats = jbn.init(FEATURES)

    def loss(x, affine):
        y, new = jbn.batch_norm(x, affine, stats, mask=mask, axis_name=axis_name)
        return jnp.sum(jnp.where(mask[:, None], y, 0) * ct), (y, new)

    (_, (y, new)), (dx, daffine) = jax.value_and_grad(loss, (0, 1), has_aux=True)(x, affine)
    return y, new, dx, daffine


def mesh(*shape):
    devices = np.array(jax.devices()[: np.prod(shape)]).reshape(shape)
    return Mesh(devices, ("data", "more")[: len(shape)])


def check(got, expected, mask, atol=2e-6):
    (y, *rest), (whole_y, *whole) = got, expected
    chex.assert_trees_all_close(y[mask], whole_y[mask], atol=atol)
    chex.assert_trees_all_close(rest, whole, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize("valid", [[8, 5, 1, 7], [3, 0, 8, 1], [0, 0, 0, 6]])
def test_shard_map_equals_one_device(valid, mean):
    x, mask, ct, affine = draw(mean, valid=valid)
    rows = P("data")

    def part(x, mask, ct, affine):
        y, new, dx, daffine = run(x, mask, ct, affine, "data")
        return y, new, dx, daffine

    # check_vma stays on: new statistics and parameter gradients must be known to be replicated.
    sharded = jax.jit(
        jax.shard_map(
            part,
            mesh=mesh(4),
            in_specs=(rows, rows, rows, P()),
            out_specs=(rows, P(), rows, P()),
        )
    )
    check(sharded(x, mask, ct, affine), run(x, mask, ct, affine), mask)


def test_shard_map_on_blocked_shapes():
    x, mask, ct, affine = draw(1e3, rows=4096, valid=[8, 5, 1, 7])
    rows = P("data")
    sharded = jax.shard_map(
        lambda *args: run(*args, "data"),
        mesh=mesh(4),
        in_specs=(rows, rows, rows, P()),
        out_specs=(rows, P(), rows, P()),
    )
    y, new, dx, daffine = jax.jit(sharded)(x, mask, ct, affine)
    expected = run(x, mask, ct, affine)
    check((y, new, dx), expected[:3], mask)
    chex.assert_trees_all_close(daffine, expected[3], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("axes", [("data", "more"), "data"])
def test_one_or_several_axes(axes):
    valid = [8, 5, 1, 7] if axes == ("data", "more") else [8, 5]
    x, mask, ct, affine = draw(valid=valid)
    rows = P(axes)
    sharded = jax.shard_map(
        lambda *args: run(*args, axes),
        mesh=mesh(2, 2),
        in_specs=(rows, rows, rows, P()),
        out_specs=(rows, P(), rows, P()),
    )
    check(jax.jit(sharded)(x, mask, ct, affine), run(x, mask, ct, affine), mask)


def test_vmap_with_an_axis_name_and_eight_parts():
    x, mask, ct, affine = draw()
    parts = jax.tree.map(lambda a: a.reshape(8, 8, *a.shape[1:]), (x, mask, ct))
    mapped = jax.vmap(lambda *args: run(*args, affine, "data"), axis_name="data")
    y, new, dx, daffine = mapped(*parts)
    expected = run(x, mask, ct, affine)
    # Each part holds the sum over all parts of what its own loss adds to its own parameters.
    got = (
        y.reshape(x.shape),
        jax.tree.map(lambda leaf: leaf[3], new),
        dx.reshape(x.shape),
        jax.tree.map(lambda leaf: leaf.sum(0), daffine),
    )
    check(got, expected, mask)


def test_one_example_per_device(key):
    x = jax.random.normal(key, (4, FEATURES))
    affine, stats = jbn.init(FEATURES)
    whole = jbn.batch_norm(x, affine, stats)
    mapped = jax.vmap(
        lambda x: jbn.batch_norm(x, affine, stats, axis_name="data"), axis_name="data"
    )
    y, new = mapped(x)
    chex.assert_trees_all_close(y, whole[0], atol=1e-6)
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[0], new), whole[1], atol=1e-6)


def test_sync_moments_pools_what_the_devices_hold():
    x, mask, _, _ = draw(1e4)
    whole = jbn.batch_moments(x, mask=mask)

    def part(x, mask):
        return jbn.sync_moments(jbn.batch_moments(x, mask=mask), "data")

    synced = jax.vmap(part, axis_name="data")(x.reshape(8, 8, -1), mask.reshape(8, 8))
    chex.assert_trees_all_close(
        jax.tree.map(lambda leaf: leaf[5], synced), whole, rtol=1e-6, atol=1e-7
    )
    np.testing.assert_array_equal(synced.size[0], sum(VALID))


def test_jit_on_sharded_arrays_normalises_the_whole_batch():
    x, mask, ct, affine = draw(1e3, valid=[8, 5, 0, 7])
    rows = NamedSharding(mesh(4), P("data"))
    sharded = [jax.device_put(a, rows) for a in (x, mask, ct)]
    check(jax.jit(run)(*sharded, affine), run(x, mask, ct, affine), mask)


@pytest.mark.filterwarnings("ignore:.*pmap:DeprecationWarning")
def test_pmap_equals_one_device():
    x, mask, ct, affine = draw(valid=[8, 5, 1, 7])
    parts = jax.tree.map(lambda a: a.reshape(4, 8, *a.shape[1:]), (x, mask, ct))
    y, new, dx, daffine = jax.pmap(
        lambda *args: run(*args, affine, "data"), axis_name="data", devices=jax.devices()[:4]
    )(*parts)
    got = (
        y.reshape(x.shape),
        jax.tree.map(lambda leaf: leaf[1], new),
        dx.reshape(x.shape),
        jax.tree.map(lambda leaf: leaf.sum(0), daffine),
    )
    check(jax.tree.map(np.asarray, got), run(x, mask, ct, affine), mask)


def test_one_collective_forward_and_one_backward():
    x, mask, ct, affine = draw(valid=[8, 5, 1, 7])
    rows = P("data")

    def collectives(function, out_specs):
        sharded = jax.shard_map(
            function, mesh=mesh(4), in_specs=(rows, rows, rows, P()), out_specs=out_specs
        )
        text = jax.jit(sharded).lower(x, mask, ct, affine).compile().as_text()
        return len(
            re.findall(r" (all-reduce|all-gather|collective-permute|reduce-scatter)\(", text)
        )

    def forward(x, mask, ct, affine):
        return jbn.batch_norm(x, affine, jbn.init(FEATURES)[1], mask=mask, axis_name="data")

    def backward(x, mask, ct, affine):
        return run(x, mask, ct, affine, "data")[2]

    assert collectives(forward, (rows, P())) == 1
    assert collectives(backward, rows) == 2


def test_an_unbound_axis_name_is_named():
    with pytest.raises(NameError, match="axis_name='date' is not bound.*shard_map"):
        jbn.batch_norm(jnp.ones((4, 3)), *jbn.init(3), axis_name="date")
