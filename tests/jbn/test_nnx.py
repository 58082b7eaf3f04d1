"""The NNX layer is Flax's own to the eye of a model, and better where Flax's is wrong."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jbn.nnx

LAYERS = (nnx.BatchNorm, jbn.nnx.BatchNorm)
OPTIONS = [
    {},
    {"axis": 1},
    {"axis": -2, "momentum": 0.5, "epsilon": 1e-2},
    {"use_bias": False},
    {"use_scale": False},
    {"use_scale": False, "use_bias": False},
    {"dtype": jnp.bfloat16},
    {"param_dtype": jnp.bfloat16},
    {"param_dtype": jnp.bfloat16, "dtype": jnp.float16},
    {"scale_init": nnx.initializers.normal(), "bias_init": nnx.initializers.normal()},
    {"use_fast_variance": False, "promote_dtype": lambda arrays, dtype: arrays},
]


def batch(key, shape=(6, 5, 4, 3), dtype=jnp.float32):
    return (2 * jax.random.normal(key, shape) + 1).astype(dtype)


def values(layer):
    """The variables as plain arrays, copied: later training must not change them."""
    return jax.tree.map(jnp.array, nnx.to_pure_dict(nnx.state(layer)))


def name(value):
    return "-".join(value) or "defaults" if isinstance(value, dict) else jnp.dtype(value).name


TYPES = [(options, jnp.float32) for options in OPTIONS]
TYPES += [(options, jnp.bfloat16) for options in OPTIONS if not options or "dtype" in str(options)]


@pytest.mark.parametrize(("options", "dtype"), TYPES, ids=name)
def test_equals_flax_on_ordinary_data(key, options, dtype):
    x = batch(key, dtype=dtype)
    ct = jax.random.normal(jax.random.key(1), x.shape)
    outcomes = []
    for make in LAYERS:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):

            @jax.jit
            def everything(x, ct, make=make):
                layer = make(x.shape[options.get("axis", -1)], rngs=nnx.Rngs(2), **options)
                before = values(layer)

                def loss(layer, x):
                    y = layer(x)
                    return jnp.sum(y.astype(jnp.float32) * ct), y

                (dparams, dx), y = nnx.grad(loss, argnums=(0, 1), has_aux=True)(layer, x)
                layer.eval()
                return before, y, values(layer), (nnx.to_pure_dict(dparams), dx), layer(x)

            outcomes.append(everything(x, ct))
    half = jnp.bfloat16 in (dtype, *options.values()) or jnp.float16 in options.values()
    chex.assert_trees_all_equal(outcomes[1][0], outcomes[0][0])
    chex.assert_trees_all_equal_shapes_and_dtypes(*outcomes)
    chex.assert_trees_all_close(*outcomes, rtol=2e-2 if half else 1e-5, atol=6e-2 if half else 2e-5)


@pytest.mark.parametrize(("trained", "loaded"), [LAYERS, LAYERS[::-1]])
def test_a_state_of_one_loads_into_the_other(key, trained, loaded):
    x = batch(key, (16, 5))
    first, second = (make(5, rngs=nnx.Rngs(0)) for make in (trained, loaded))
    with jax.numpy_rank_promotion("allow"):
        for step in range(3):
            first(x + step)
        nnx.update(second, nnx.state(first))
        expected, got = (layer(x, use_running_average=True) for layer in (first, second))
    chex.assert_trees_all_close(got, expected, atol=1e-6)


def test_layer_and_function_are_the_same_thing(key):
    x = batch(key, (12, 5))
    layer = jbn.nnx.BatchNorm(5, momentum=0.8, rngs=nnx.Rngs(0))
    y = layer(x)
    expected, stats = jbn.batch_norm(x, *jbn.init(5), momentum=0.8)
    chex.assert_trees_all_equal(y, expected)
    chex.assert_trees_all_equal((layer.mean[...], layer.var[...]), tuple(stats))


def test_momentum_can_be_given_per_call_and_traced(key):
    x = batch(key, (12, 5))
    layer = jbn.nnx.BatchNorm(5, rngs=nnx.Rngs(0))
    step = nnx.jit(lambda layer, momentum: layer(x, momentum=momentum))
    moments = jbn.batch_moments(x)
    step(layer, jnp.float32(0))
    np.testing.assert_allclose(layer.mean[...], moments.mean, rtol=1e-6)
    np.testing.assert_allclose(layer.var[...], moments.var, rtol=1e-6)
    before = values(layer)
    step(layer, jnp.float32(1))
    chex.assert_trees_all_equal(values(layer), before)


def test_the_mode_comes_from_call_attribute_and_view(key):
    x = batch(key, (12, 5))
    layer = jbn.nnx.BatchNorm(5, rngs=nnx.Rngs(0))
    layer(x, use_running_average=True)
    np.testing.assert_array_equal(layer.mean[...], 0)
    layer.eval()
    layer(x)
    np.testing.assert_array_equal(layer.mean[...], 0)
    training = nnx.view(layer, use_running_average=False)
    assert layer.use_running_average
    assert not training.use_running_average
    training(x)
    # A view shares its variables with the layer.
    assert np.all(np.asarray(layer.mean[...]) != 0)
    layer.train()
    assert not layer.use_running_average

    undecided = jbn.nnx.BatchNorm(5, use_running_average=None, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="use_running_average is None.*model.train()"):
        undecided(x)


def test_metadata_reaches_the_variables():
    layer = jbn.nnx.BatchNorm(
        3, rngs=nnx.Rngs(0), scale_metadata={"tag": "gamma"}, bias_metadata={"tag": "beta"}
    )
    assert (layer.scale.tag, layer.bias.tag) == ("gamma", "beta")
    assert isinstance(layer.scale, nnx.Param)
    assert isinstance(layer.var, nnx.BatchStat)


def test_a_promotion_function_sees_what_flax_shows_it(key):
    x = batch(key, (12, 5))
    seen = []

    def promote(arrays, dtype):
        seen.append([None if a is None else a.shape for a in arrays])
        x, mean, *rest = arrays
        return (x + 7, mean + 2, *rest)

    layer = jbn.nnx.BatchNorm(
        5, use_bias=False, momentum=0.0, promote_dtype=promote, rngs=nnx.Rngs(0)
    )
    layer(x)
    assert seen == [[(12, 5), (5,), (5,), (5,), None]]
    # What it does to the running statistics reaches inference and not what is kept.
    np.testing.assert_allclose(layer.mean[...], x.mean(0) + 7, rtol=1e-5)
    y = layer(x, use_running_average=True)
    np.testing.assert_allclose(y.mean(0), jnp.full(5, -2) / jnp.sqrt(layer.var[...]), rtol=1e-4)


def test_several_feature_axes_are_one_list_of_features(key):
    x = batch(key)
    layer = jbn.nnx.BatchNorm(15, axis=(1, -1), momentum=0.0, rngs=nnx.Rngs(0))
    y = layer(x)
    np.testing.assert_allclose(layer.mean[...], x.mean((0, 2)).reshape(-1), atol=1e-6)
    np.testing.assert_allclose(y.mean((0, 2)), np.zeros((5, 3)), atol=1e-6)
    with pytest.raises(ValueError, match="has 3 features.*has shape \\(15,\\)"):
        jbn.nnx.BatchNorm(15, rngs=nnx.Rngs(0))(x)


def test_split_and_merge_keep_everything(key):
    x = batch(key, (12, 5))
    layer = jbn.nnx.BatchNorm(5, axis_index_groups=[[0], [1]], axis_name="d", rngs=nnx.Rngs(0))
    definition, state = nnx.split(layer)
    assert hash(definition) == hash(nnx.split(layer)[0])
    merged = nnx.merge(definition, state)
    chex.assert_trees_all_equal(values(merged), values(layer))
    assert merged.axis_index_groups == ((0,), (1,))

    plain = jbn.nnx.BatchNorm(5, rngs=nnx.Rngs(0))
    definition, state = nnx.split(plain)

    @jax.jit
    def step(state):
        layer = nnx.merge(definition, state)
        y = layer(x)
        return y, nnx.state(layer)

    y, state = step(state)
    chex.assert_trees_all_close(y, plain(x), atol=1e-6)
    chex.assert_trees_all_close(nnx.to_pure_dict(state), values(plain), atol=1e-6)


def test_lifted_jit_and_remat_update_once(key):
    x = batch(key, (12, 5))
    layers = [jbn.nnx.BatchNorm(5, rngs=nnx.Rngs(0)) for _ in range(3)]
    calls = (
        lambda layer, x: layer(x),
        nnx.jit(lambda layer, x: layer(x)),
        nnx.remat(lambda layer, x: layer(x)),
    )

    def run(layer, call):
        grads = nnx.grad(lambda layer: jnp.sum(jnp.sin(call(layer, x))))(layer)
        return nnx.to_pure_dict(grads), values(layer)

    plain, jitted, remat = (run(layer, call) for layer, call in zip(layers, calls))
    chex.assert_trees_all_close(jitted, plain, atol=1e-6)
    chex.assert_trees_all_close(remat, plain, atol=1e-6)
    assert len(plain[0]) == 2  # the running statistics have no gradient


def test_lifted_vmap_is_an_ensemble(key):
    x = batch(key, (3, 12, 5))

    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def make(rngs):
        return jbn.nnx.BatchNorm(5, scale_init=nnx.initializers.normal(), rngs=rngs)

    ensemble = make(nnx.Rngs(0))
    first = jax.tree.map(lambda leaf: leaf[0], nnx.state(ensemble))
    y = nnx.vmap(lambda layer, x: layer(x))(ensemble, x)
    single = jbn.nnx.BatchNorm(5, rngs=nnx.Rngs(0))
    nnx.update(single, first)
    chex.assert_trees_all_close(y[0], single(x[0]), atol=1e-6)
    chex.assert_trees_all_close(
        jax.tree.map(lambda leaf: leaf[0], values(ensemble)), values(single), atol=1e-6
    )


def test_lifted_scan_runs_a_stack_of_layers(key):
    x = batch(key, (12, 5))

    @nnx.split_rngs(splits=4)
    @nnx.vmap
    def make(rngs):
        return jbn.nnx.BatchNorm(5, bias_init=nnx.initializers.normal(), rngs=rngs)

    stack = make(nnx.Rngs(0))
    singles = [jbn.nnx.BatchNorm(5, rngs=nnx.Rngs(0)) for _ in range(4)]
    for i, single in enumerate(singles):
        nnx.update(single, jax.tree.map(lambda leaf, i=i: leaf[i], nnx.state(stack)))

    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    def forward(x, layer):
        return jnp.sin(layer(x))

    y, expected = forward(x, stack), x
    for single in singles:
        expected = jnp.sin(single(expected))
    chex.assert_trees_all_close(y, expected, atol=1e-5)
    chex.assert_trees_all_close(
        jax.tree.map(lambda leaf: leaf[3], values(stack)), values(singles[3]), atol=1e-5
    )


def test_statistics_travel_with_their_sizes(key):
    x = batch(key, (4, 8, 5))
    mask = jnp.arange(8)[None] < jnp.array([8, 3, 0, 5])[:, None]
    layer = jbn.nnx.BatchNorm(5, axis_name="devices", momentum=0.0, rngs=nnx.Rngs(0))

    @nnx.vmap(in_axes=(None, 0, 0), axis_name="devices")
    def part(layer, x, mask):
        return layer(x, mask=mask)

    part(layer, x, mask)
    chosen = np.asarray(x)[np.asarray(mask)]
    np.testing.assert_allclose(layer.mean[...], chosen.mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.var[...], chosen.var(0), rtol=1e-5)
    with pytest.raises(NameError, match="axis_name='devices' is not bound"):
        layer(x[0])
