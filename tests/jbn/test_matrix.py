"""Batch norm on every mesh, by a pairwise cover of the cells of `matrix`."""

import itertools

import chex
import collectives
import jax
import jax.numpy as jnp
import matrix
import numpy as np
import pytest
from jax import P
from jax.sharding import NamedSharding

import jbn

CELLS = matrix.cover()


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_mesh_gives_the_whole_batch_and_moves_no_array_of_its_size(cell):
    assert not matrix.check(cell)


def test_the_cover_holds_all_pairs_and_is_small():
    def pairs(cells):
        return {
            pair
            for cell in cells
            for pair in itertools.combinations(zip(matrix.Cell._fields, cell), 2)
        }

    assert len(CELLS) <= 150
    assert all(map(matrix.exists, CELLS))
    assert pairs(CELLS) == pairs(matrix.product())
    explicit = [cell for cell in CELLS if cell.axes == "Explicit"]
    everywhere = [cell for cell in matrix.product() if cell.axes == "Explicit"]
    assert pairs(explicit) == pairs(everywhere)
    for name in ("variant", "sharded"):
        assert {getattr(cell, name) for cell in explicit} == set(matrix.DIMENSIONS[name])


def test_a_collective_of_a_whole_array_is_seen():
    mesh = jax.make_mesh((4,), ("data",))
    x = jax.device_put(jnp.ones((64, 8)), NamedSharding(mesh, P("data")))

    def carried(function):
        text = jax.jit(function).lower(x).compile().as_text()
        return [(found.kind, found.elements) for found in collectives.find(text)]

    def by_hand(function, out_specs):
        return jax.shard_map(function, in_specs=P("data"), out_specs=out_specs)

    with jax.set_mesh(mesh):
        assert carried(jnp.sin) == []
        assert carried(lambda x: jnp.sum(x, 0)) == [("all-reduce", 8)]
        assert carried(lambda x: jax.sharding.reshard(x, P())) == [("all-gather", 512)]
        (moved,) = carried(lambda x: jax.sharding.reshard(x, P(None, "data")))
        assert moved == ("all-to-all", 128)
        gathered = by_hand(lambda x: jax.lax.all_gather(x, "data")[None], P("data"))
        assert carried(gathered) == [("all-gather", 512)]
        scattered = by_hand(lambda x: jax.lax.psum_scatter(x, "data", tiled=True), P("data"))
        assert [elements for _, elements in carried(scattered)] == [128]
        moved = by_hand(lambda x: jax.lax.ppermute(x, "data", [(0, 1)]), P("data"))
        assert carried(moved) == [("collective-permute", 128)]


def test_vectors_come_to_the_features_and_statistics_stay_where_they_were():
    mesh = jax.make_mesh((2, 2), ("data", "model"))
    x = jax.random.normal(jax.random.key(0), (8, 4))
    vectors = jbn.Affine(jnp.arange(1.0, 5), jnp.ones(4)), jbn.init(4)[1]
    right = jbn.batch_norm(x, *vectors)
    elsewhere = jax.device_put(vectors, NamedSharding(mesh, P("data")))
    split = jax.device_put(x, NamedSharding(mesh, P("data", "model")))
    y, stats = jbn.batch_norm(split, *elsewhere)
    assert jax.typeof(y).sharding.spec == P("data", "model")
    assert jax.typeof(stats.mean).sharding.spec == P("data")
    chex.assert_trees_all_close((y, stats), right, atol=1e-6)


def test_moments_are_made_and_differentiated_on_a_mesh_that_is_not_in_use():
    mesh = jax.make_mesh((2, 2), ("data", "model"))
    parts = NamedSharding(mesh, P("data", "model"))
    mean, var = jax.device_put(tuple(jax.random.uniform(jax.random.key(0), (2, 8, 4))), parts)
    size = jax.device_put(jnp.full((8, 4), 3.0), parts)

    def pooled(mean, var):
        found = jbn.pool_moments(jbn.Moments(mean, var, size))
        return found.mean, found.var

    found, pullback = jax.vjp(pooled, mean, var)
    dmean, dvar = pullback(found)
    chex.assert_trees_all_close(found[0], np.asarray(mean).mean(0), atol=1e-6)
    chex.assert_trees_all_close(dvar, np.broadcast_to(found[1], (8, 4)) / 8, atol=1e-6)
    chex.assert_tree_all_finite(dmean)
