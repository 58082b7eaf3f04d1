"""Norms of a model that was not written for jbn, run by jbn with options of one's own."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jbn
import jbn.linen
import jbn.nnx

X = 3 + 2 * jax.random.normal(jax.random.key(0), (24, 4))
OPTIONS = {"variant": jbn.Ghost(8), "momentum": 0.5}


class Block(nn.Module):
    norm: type

    @nn.compact
    def __call__(self, x, _=None):
        options = {"momentum": 0.9, "epsilon": 1e-3, "use_scale": False, "name": "bn"}
        x = nn.Dense(4)(x)
        return jnp.tanh(self.norm(use_running_average=False, **options)(x)), None


class Model(nn.Module):
    norm: type = nn.BatchNorm

    @nn.compact
    def __call__(self, x):
        x, _ = Block(self.norm, name="first")(x)
        axes = {"params": 0, "batch_stats": 0}
        stack = nn.scan(Block, variable_axes=axes, split_rngs={"params": True}, length=2)
        return nn.remat(stack)(self.norm, name="stack")(x, None)[0]


@pytest.fixture(scope="module")
def variables():
    with jax.numpy_rank_promotion("allow"):
        return Model().init(jax.random.key(1), X)


def ghosts(**options):
    """The norm as one would have written it."""
    return type("BatchNorm", (), {"__new__": lambda cls, **fields: jbn.linen.BatchNorm(
        **fields | options)})  # fmt: skip


def test_a_linen_model_runs_as_if_it_had_been_edited(variables):
    def step(apply):
        def loss(params):
            y, moved = apply({**variables, "params": params}, X, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(y)), moved

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])

    with jax.numpy_rank_promotion("allow"):
        found = step(jbn.linen.replace_norms(Model().apply, **OPTIONS))
        edited = step(Model(ghosts(**OPTIONS)).apply)
        plain = step(Model().apply)
    chex.assert_trees_all_equal(found, edited)
    assert abs(found[0][0] - plain[0][0]) > 1e-3
    made = jbn.linen.replace_norms(Model().init)(jax.random.key(1), X)
    chex.assert_trees_all_equal(made, variables)


def test_an_axis_name_and_a_traced_momentum(variables):
    def step(x, momentum):
        apply = jbn.linen.replace_norms(
            Block(nn.BatchNorm).apply, axis_name="data", momentum=momentum
        )
        given = {name: tree["first"] for name, tree in variables.items()}
        return apply(given, x, mutable=["batch_stats"])

    halves = jax.vmap(step, in_axes=(0, None), axis_name="data")
    (y, _), moved = jax.jit(halves)(X.reshape(2, 12, 4), 0.0)
    norm = Block(ghosts(momentum=0.0))
    given = {name: tree["first"] for name, tree in variables.items()}
    (whole, _), right = norm.apply(given, X, mutable=["batch_stats"])
    chex.assert_trees_all_close(y.reshape(24, 4), whole, atol=1e-5)
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[1], moved), right, rtol=1e-5)


def nnx_model():
    rngs = nnx.Rngs(0)
    norms = nnx.BatchNorm(4, epsilon=1e-3, rngs=rngs), jbn.nnx.BatchNorm(4, rngs=rngs)
    return nnx.Sequential(nnx.Linear(4, 4, rngs=rngs), norms[0], nnx.relu, norms[1])


def test_a_model_of_nnx_is_changed_where_it_is():
    model, edited = nnx_model(), nnx_model()
    run = nnx.jit(lambda model, x: model(x))
    with jax.numpy_rank_promotion("allow"):
        before = run(model, X)
    assert jbn.nnx.replace_norms(model, **OPTIONS) == ["layers/1", "layers/3"]
    norms = [jbn.nnx.BatchNorm(4, epsilon=e, rngs=nnx.Rngs(0), **OPTIONS) for e in (1e-3, 1e-5)]
    edited.layers[1], edited.layers[3] = norms
    for old, new in zip((model.layers[1], model.layers[3]), norms):
        new.mean[...], new.var[...] = old.mean[...], old.var[...]
    y = run(model, X)
    chex.assert_trees_all_equal(y, run(edited, X))
    chex.assert_trees_all_equal(nnx.state(model), nnx.state(edited))
    assert float(jnp.max(jnp.abs(y - before))) > 1e-3
    model.eval()
    chex.assert_shape(model(X[:1]), (1, 4))


def test_lists_are_stored_as_the_constructor_stores_them():
    model, groups = nnx_model(), [[0, 1], [2, 3]]
    options = {"axis": [-1], "axis_index_groups": groups}
    jbn.nnx.replace_norms(model, **options)
    built = jbn.nnx.BatchNorm(4, rngs=nnx.Rngs(0), **options)
    for norm in (model.layers[1], model.layers[3]):
        assert (norm.axis, norm.axis_index_groups) == (built.axis, built.axis_index_groups)
    hash(nnx.graphdef(model))


def test_what_cannot_be_replaced_is_named():
    with pytest.raises(TypeError, match="no decay. It has axis, axis_index_groups"):
        jbn.linen.replace_norms(Model().apply, decay=0.9)
    with pytest.raises(TypeError, match="not to be replaced: num_features"):
        jbn.nnx.replace_norms(nnx_model(), num_features=3)


def test_a_norm_with_a_call_of_its_own_is_refused():
    class Doubled(nn.BatchNorm):
        @nn.compact
        def __call__(self, x, **options):
            return 2 * super().__call__(x, **options)

    layer = Doubled(use_running_average=False)
    variables = nn.BatchNorm(use_running_average=False).init(jax.random.key(0), jnp.ones((2, 1)))
    apply = jbn.linen.replace_norms(layer.apply)
    with pytest.raises(TypeError, match="Doubled is a batch norm of its own"):
        apply(variables, jnp.ones((2, 1)), mutable=["batch_stats"])

    class NnxDoubled(nnx.BatchNorm):
        pass

    model = nnx_model()
    model.layers.append(NnxDoubled(4, rngs=nnx.Rngs(0)))
    with pytest.raises(TypeError, match="NnxDoubled is a batch norm of its own"):
        jbn.nnx.replace_norms(model)
    assert type(model.layers[1]) is nnx.BatchNorm
