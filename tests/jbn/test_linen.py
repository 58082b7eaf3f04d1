"""The Linen layer is Flax's own to the eye of a model, and better where Flax's is wrong."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jbn.linen

LAYERS = (nn.BatchNorm, jbn.linen.BatchNorm)
OPTIONS = [
    {},
    {"axis": 1},
    {"axis": (1, 3)},
    {"axis": -2, "momentum": 0.5, "epsilon": 1e-2},
    {"use_bias": False},
    {"use_scale": False},
    {"use_scale": False, "use_bias": False},
    {"dtype": jnp.bfloat16},
    {"param_dtype": jnp.bfloat16},
    {"param_dtype": jnp.bfloat16, "dtype": jnp.float16},
    {"scale_init": nn.initializers.normal(), "bias_init": nn.initializers.normal()},
    {"use_fast_variance": False, "force_float32_reductions": False},
]


def batch(key, shape=(6, 5, 4, 3), dtype=jnp.float32):
    return (2 * jax.random.normal(key, shape) + 1).astype(dtype)


def name(value):
    return "-".join(value) or "defaults" if isinstance(value, dict) else jnp.dtype(value).name


TYPES = [(options, jnp.float32) for options in OPTIONS]
TYPES += [(options, jnp.bfloat16) for options in OPTIONS if not options or "param_dtype" in options]


@pytest.mark.parametrize(("options", "dtype"), TYPES, ids=name)
def test_equals_flax_on_ordinary_data(key, options, dtype):
    x = batch(key, dtype=dtype)
    ct = jax.random.normal(jax.random.key(1), x.shape)
    outcomes = []
    for layer in LAYERS:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            train = layer(use_running_average=False, **options)
            infer = layer(use_running_average=True, **options)

            @jax.jit
            def everything(x, ct, train=train, infer=infer):
                variables = train.init(jax.random.key(2), x)

                def loss(params, x):
                    y, updates = train.apply({**variables, **params}, x, mutable=["batch_stats"])
                    return jnp.sum(y.astype(jnp.float32) * ct), (y, updates)

                params = {name: v for name, v in variables.items() if name == "params"}
                grads, (y, updates) = jax.grad(loss, (0, 1), has_aux=True)(params, x)
                return variables, y, updates, grads, infer.apply({**variables, **updates}, x)

            outcomes.append(everything(x, ct))
    half = jnp.bfloat16 in (dtype, *options.values()) or jnp.float16 in options.values()
    chex.assert_trees_all_equal(outcomes[1][0], outcomes[0][0])
    chex.assert_trees_all_equal_shapes_and_dtypes(*outcomes)
    chex.assert_trees_all_close(*outcomes, rtol=2e-2 if half else 1e-5, atol=6e-2 if half else 2e-5)


@pytest.mark.parametrize(("trained", "loaded"), [LAYERS, LAYERS[::-1]])
def test_a_checkpoint_of_one_loads_into_the_other(key, trained, loaded):
    class Net(nn.Module):
        norm: type

        @nn.compact
        def __call__(self, x, train):
            x = nn.Dense(7, use_bias=False)(x)
            x = self.norm(use_running_average=not train, name="norm")(x)
            return nn.Dense(2)(nn.relu(x))

    with jax.numpy_rank_promotion("allow"):
        x = batch(key, (16, 5))
        variables = Net(trained).init(key, x, train=True)
        for step in range(3):
            _, updates = Net(trained).apply(
                variables, x + step, train=True, mutable=["batch_stats"]
            )
            variables = {**variables, **updates}
        chex.assert_trees_all_close(
            Net(loaded).apply(variables, x, train=False),
            Net(trained).apply(variables, x, train=False),
            atol=1e-6,
        )


def test_layer_and_function_are_the_same_thing(key):
    x = batch(key, (12, 5))
    layer = jbn.linen.BatchNorm(use_running_average=False, momentum=0.8)
    variables = layer.init(key, x)
    y, updates = layer.apply(variables, x, mutable=["batch_stats"])
    expected, stats = jbn.batch_norm(x, *jbn.init(5), momentum=0.8)
    chex.assert_trees_all_equal(y, expected)
    chex.assert_trees_all_equal(updates["batch_stats"], stats._asdict())


def test_momentum_can_be_given_per_call_and_traced(key):
    x = batch(key, (12, 5))
    layer = jbn.linen.BatchNorm(use_running_average=False)
    variables = layer.init(key, x)

    @jax.jit
    def stats(momentum):
        return layer.apply(variables, x, momentum=momentum, mutable=["batch_stats"])[1]

    moments = jbn.batch_moments(x)
    fresh = stats(0.0)["batch_stats"]
    np.testing.assert_allclose(fresh["mean"], moments.mean, rtol=1e-6)
    np.testing.assert_allclose(fresh["var"], moments.var, rtol=1e-6)
    np.testing.assert_allclose(stats(0.75)["batch_stats"]["mean"], moments.mean / 4, rtol=1e-5)


def test_the_variant_is_used(key):
    class Loud:
        def __call__(self, x, affine, stats, **kwargs):
            y, moments = jbn.Standard()(x, affine, stats, **kwargs)
            return y + 100, moments

        def __hash__(self):
            return 7

        def __eq__(self, other):
            return isinstance(other, Loud)

    x = batch(key, (12, 5))
    layer = jbn.linen.BatchNorm(use_running_average=False, variant=Loud())
    y, _ = layer.init_with_output(key, x)
    assert float(jnp.mean(y)) == pytest.approx(100, abs=1e-3)


def test_masks_follow_the_feature_axis(key):
    x = batch(key, (6, 5, 4))
    mask = jax.random.bernoulli(key, 0.7, (6, 1, 4))
    layer = jbn.linen.BatchNorm(use_running_average=False, axis=1, momentum=0.0)
    variables = layer.init(key, x)
    _, updates = layer.apply(
        variables, jnp.where(mask, x, jnp.nan), mask=mask, mutable=["batch_stats"]
    )
    chosen = np.asarray(x).transpose(0, 2, 1)[np.asarray(mask)[:, 0]]
    np.testing.assert_allclose(updates["batch_stats"]["mean"], chosen.mean(0), rtol=1e-5)
    np.testing.assert_allclose(updates["batch_stats"]["var"], chosen.var(0), rtol=1e-5)

    full = jax.random.bernoulli(key, 0.7, x.shape)
    _, updates = layer.apply(variables, x, mask=full, mutable=["batch_stats"])
    for c in range(5):
        chosen = np.asarray(x)[:, c][np.asarray(full)[:, c]]
        np.testing.assert_allclose(updates["batch_stats"]["mean"][c], chosen.mean(), rtol=1e-5)


def test_initialising_needs_no_batch_and_no_axis(key):
    layer = jbn.linen.BatchNorm(use_running_average=False, axis_name="devices")
    for shape in ((1, 5), (5,), (8, 5)):
        variables = layer.init(key, batch(key, shape))
        np.testing.assert_array_equal(variables["batch_stats"]["mean"], 0)
        np.testing.assert_array_equal(variables["batch_stats"]["var"], 1)


def test_statistics_travel_with_their_sizes(key):
    x = batch(key, (4, 8, 5))
    mask = jnp.arange(8)[None] < jnp.array([8, 3, 0, 5])[:, None]
    layer = jbn.linen.BatchNorm(use_running_average=False, axis_name="devices", momentum=0.0)
    variables = layer.init(key, x[0])

    def part(x, mask):
        return layer.apply(variables, x, mask=mask, mutable=["batch_stats"])[1]["batch_stats"]

    stats = jax.vmap(part, axis_name="devices")(x, mask)
    chosen = np.asarray(x)[np.asarray(mask)]
    np.testing.assert_allclose(stats["mean"][2], chosen.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"][2], chosen.var(0), rtol=1e-5)


def test_lifted_transformations_keep_one_update(key):
    x = batch(key, (12, 5))
    plain = jbn.linen.BatchNorm(use_running_average=False)
    remat = nn.remat(jbn.linen.BatchNorm)(use_running_average=False)
    variables = plain.init(key, x)

    def loss(layer):
        def function(variables):
            y, updates = layer.apply(variables, x, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(y)), updates

        return jax.grad(function, has_aux=True)(variables)

    chex.assert_trees_all_close(loss(remat), loss(plain), atol=1e-6)
