"""The assembled function: values, gradients, transformations, compilations."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax._src.ad_checkpoint import saved_residuals
from jax.sharding import AxisType

import jbn

SHAPES = [(2, 3), (7, 5, 6, 4), (512, 130), (4096, 1)]


def draw(key, shape, mean=0.0, std=1.0):
    """A batch, parameters and a cotangent, all random: a constant one would hide mistakes."""
    keys = jax.random.split(key, 4)
    x = mean + std * jax.random.normal(keys[0], shape)
    scale, bias = jax.random.normal(keys[1], (2, shape[-1])) + 1
    return x, jbn.Affine(scale, bias), jax.random.normal(keys[2], shape)


def value_and_gradients(x, affine, cotangent, **options):
    _, stats = jbn.init(x.shape[-1])

    def loss(x, affine):
        y, new = jbn.batch_norm(x, affine, stats, momentum=0.0, **options)
        return jnp.sum(y * cotangent), (y, new)

    (_, (y, new)), grads = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(x, affine)
    return y, new, grads


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1e4, 0.1), (-1e6, 1.0)])
def test_values_and_gradients_equal_an_extended_precision_reference(key, shape, mean, std):
    x, affine, cotangent = draw(key, shape, mean, std)
    y, stats, (dx, daffine) = value_and_gradients(x, affine, cotangent)
    reference.assert_matches(
        reference.batch_norm(x, *affine, cotangent),
        y=y,
        mean=stats.mean,
        var=stats.var,
        dx=dx,
        dscale=daffine.scale,
        dbias=daffine.bias,
    )


def test_a_large_mean_costs_no_digits(key):
    x = 1e4 + 0.1 * jax.random.normal(key, (8192, 16))
    affine, stats = jbn.init(16)
    y, _ = jbn.batch_norm(x, affine, stats)
    assert np.max(np.abs(np.asarray(y) - reference.batch_norm(x, *affine, x).y)) < 1e-5


def test_epsilon_is_in_the_units_of_the_data(key):
    x, affine, cotangent = draw(key, (30, 4), std=1e15)  # measured in smaller units inside
    y, _, (dx, _) = value_and_gradients(x, affine, cotangent, epsilon=0.5)
    ref = reference.batch_norm(x, *affine, cotangent, epsilon=0.5)
    reference.assert_matches(ref, y=y, dx=dx)


@pytest.mark.parametrize("kind", ["row", "element"])
@pytest.mark.parametrize("shape", [(12, 5), (6, 5, 4, 3), (9, 1)])
def test_masks(key, shape, kind):
    x, affine, cotangent = draw(key, shape, mean=100.0)
    flags = jax.random.bernoulli(key, 0.6, shape if kind == "element" else shape[:-1])
    wide = flags if kind == "element" else jnp.broadcast_to(flags[..., None], shape)
    cotangent = jnp.where(wide, cotangent, 0)
    ref = reference.batch_norm(x, *affine, cotangent, mask=flags)
    y, stats, (dx, daffine) = value_and_gradients(
        jnp.where(wide, x, jnp.nan), affine, cotangent, mask=flags
    )
    chex.assert_tree_all_finite((y, stats, dx, daffine))
    reference.assert_matches(
        ref,
        where=wide,
        y=y,
        mean=stats.mean,
        var=stats.var,
        dx=dx,
        dscale=daffine.scale,
        dbias=daffine.bias,
    )
    np.testing.assert_array_equal(dx[~wide], 0)


def test_finite_padding_is_normalised_with_the_statistics_of_the_rest(key):
    x, affine, cotangent = draw(key, (12, 5))
    mask = jnp.arange(12) < 9
    y, _, (dx, _) = value_and_gradients(x, affine, cotangent, mask=mask)
    reference.assert_matches(reference.batch_norm(x, *affine, cotangent, mask=mask), y=y, dx=dx)


def test_a_mask_as_long_as_the_features_still_means_examples(key):
    x, affine, _ = draw(key, (6, 6))
    mask = jnp.array([True, True, True, False, False, True])
    _, stats = jbn.batch_norm(x, affine, jbn.init(6)[1], momentum=0.0, mask=mask)
    np.testing.assert_allclose(stats.mean, np.mean(np.asarray(x)[np.asarray(mask)], 0), rtol=1e-5)


def test_without_evidence_the_running_statistics_stay(key):
    x, affine, _ = draw(key, (8, 3))
    stats = jbn.RunningStats(jnp.array([1.0, 2.0, 3.0]), jnp.array([4.0, 5.0, 6.0]))
    y, same = jbn.batch_norm(x, affine, stats, mask=jnp.zeros(8, bool), momentum=0.5)
    chex.assert_trees_all_equal(same, stats)
    chex.assert_tree_all_finite(y)

    _, touched = jbn.batch_norm(x.at[4, 1].set(jnp.inf), affine, stats, momentum=0.5)
    _, clean = jbn.batch_norm(x, affine, stats, momentum=0.5)
    feature = jnp.array([False, True, False])
    chex.assert_trees_all_equal(
        touched, jax.tree.map(lambda old, new: jnp.where(feature, old, new), stats, clean)
    )


def test_one_counted_example_does_not_shrink_the_variance(key):
    x, affine, _ = draw(key, (8, 3))
    _, stats = jbn.batch_norm(x, affine, jbn.init(3)[1], mask=jnp.arange(8) == 2, momentum=0.5)
    np.testing.assert_allclose(stats.mean, x[2] / 2, rtol=1e-6)
    np.testing.assert_array_equal(stats.var, 1.0)


def test_constant_features_come_out_as_the_bias_exactly(key):
    _, affine, cotangent = draw(key, (300, 4))
    x = jnp.broadcast_to(jnp.array([0.0, 3.7, 12345.678, 1e30]), (300, 4))
    y, stats, (dx, daffine) = value_and_gradients(x, affine, cotangent)
    np.testing.assert_array_equal(y, jnp.broadcast_to(affine.bias, x.shape))
    np.testing.assert_array_equal(stats.var, 0)
    np.testing.assert_array_equal(stats.mean, x[0])
    np.testing.assert_array_equal(daffine.scale, 0)
    reference.assert_matches(reference.batch_norm(x, *affine, cotangent), dx=dx)


class Variants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_device=True, without_device=True)
    def test_the_same_numbers_with_and_without_jit(self):
        x, affine, _ = draw(jax.random.key(3), (40, 6), mean=50.0)
        stats = jbn.init(6)[1]
        got = self.variant(jbn.batch_norm)(x, affine, stats)
        chex.assert_trees_all_close(got, jbn.batch_norm(x, affine, stats), rtol=1e-6, atol=1e-6)


def test_gradients_to_second_order_of_sums_by_blocks_equal_finite_differences():
    one = jax.make_mesh((1,), ("one",), axis_types=(AxisType.Auto,))  # several do without blocks
    with jax.enable_x64(True), jax.set_mesh(one):
        x, affine, ct = draw(jax.random.key(1), (800, 41))
        stats = jbn.init(41, jnp.float64)[1]

        @jax.jit
        def function(x, scale, bias):
            return jbn.batch_norm(x, jbn.Affine(scale, bias), stats)[0] * ct

        jax.test_util.check_grads(function, (x, *affine), 2, modes=["rev"], atol=1e-4, rtol=1e-4)


def test_every_mode_of_differentiation_agrees():
    with jax.enable_x64(True):
        x, affine, ct = draw(jax.random.key(2), (4, 3), mean=10.0)
        stats = jbn.init(3, jnp.float64)[1]

        def plain(x):
            mean, var = x.mean(0, keepdims=True), x.var(0, keepdims=True)
            y = (x - mean) / jnp.sqrt(var + 1e-5) * affine.scale[None] + affine.bias[None]
            return jnp.sum(jnp.sin(y) * ct)

        def ours(x):
            return jnp.sum(jnp.sin(jbn.batch_norm(x, affine, stats)[0]) * ct)

        tangent = jax.random.normal(jax.random.key(9), x.shape, jnp.float64)

        def third(f, x):
            return jax.jvp(jax.grad(lambda x: jax.jvp(f, (x,), (tangent,))[1]), (x,), (tangent,))

        derivatives = (
            jax.grad,
            jax.hessian,  # of jacfwd and jacrev
            lambda f: lambda x: jax.jvp(f, (x,), (tangent,)),
            lambda f: lambda x: jax.linearize(f, x)[1](tangent),
            lambda f: jax.grad(jax.checkpoint(f)),
            lambda f: lambda x: third(f, x),
        )
        found, expected = (
            jax.jit(lambda x, f=f: [derivative(f)(x) for derivative in derivatives])(x)
            for f in (ours, plain)
        )
        chex.assert_trees_all_close(found, expected, rtol=1e-8)


def test_vmap_over_models_equals_a_loop(key):
    x = jax.random.normal(key, (3, 20, 4))
    affine, stats = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 1, leaf + 2]), jbn.init(4))
    mapped = jax.vmap(jbn.batch_norm)(x, affine, stats)
    for i in range(3):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], (x, affine, stats))
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, i=i: leaf[i], mapped), jbn.batch_norm(*one), atol=1e-6
        )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_scan_carries_the_statistics(key, dtype):
    batches = (3 + jax.random.normal(key, (5, 16, 4))).astype(dtype)
    affine, stats = jbn.init(4, dtype)

    def step(stats, x):
        y, stats = jbn.batch_norm(x, affine, stats, momentum=0.9)
        return stats, y

    scanned, ys = jax.lax.scan(step, stats, batches)
    for x in batches:
        _, stats = jbn.batch_norm(x, affine, stats, momentum=0.9)
    chex.assert_trees_all_close(scanned, stats, rtol=1e-6)
    assert ys.dtype == dtype
    assert stats.mean.dtype == jnp.float32


def test_scan_carries_the_statistics_in_double_precision(key):
    with jax.enable_x64(True):
        batches = 3 + jax.random.normal(key, (5, 16, 4), jnp.float64)
        affine, stats = jbn.init(4, jnp.float64)
        step = lambda stats, x: jbn.batch_norm(x, affine, stats)[::-1]  # noqa: E731
        scanned, _ = jax.lax.scan(step, stats, batches)
        assert scanned.mean.dtype == jnp.float64
        scanned, _ = jax.lax.scan(step, jbn.init(4)[1], batches)
        assert scanned.mean.dtype == jnp.float32


def test_half_precision_keeps_float32_statistics(key):
    x = (300 + jax.random.normal(key, (4096, 8))).astype(jnp.float16)
    y, stats = jbn.batch_norm(x, *jbn.init(8), momentum=0.0)
    reference.assert_matches(
        reference.batch_norm(x, np.ones(8), np.zeros(8), x),
        tolerances=reference.TOLERANCES | {"y": 6e-4},
        y=y,
        mean=stats.mean,
        var=stats.var,
    )


def test_no_gradient_flows_through_the_running_statistics(key):
    x, affine, _ = draw(key, (8, 3))
    stats = jbn.init(3)[1]
    dx = jax.grad(lambda x: sum(map(jnp.sum, jbn.batch_norm(x, affine, stats)[1])))(x)
    np.testing.assert_array_equal(dx, 0)


def test_two_batches_before_one_backward(key):
    (a, affine, ct), (b, _, _) = draw(key, (8, 3)), draw(jax.random.key(8), (8, 3))
    stats = jbn.init(3)[1]

    def both(affine):
        ya, new = jbn.batch_norm(a, affine, stats)
        yb, _ = jbn.batch_norm(b, affine, new)
        return jnp.sum(jnp.tanh(ya) * ct) + jnp.sum(jnp.tanh(yb) * ct)

    def one(affine, x):
        return jnp.sum(jnp.tanh(jbn.batch_norm(x, affine, stats)[0]) * ct)

    separate = [jax.grad(one)(affine, x) for x in (a, b)]
    chex.assert_trees_all_close(
        jax.grad(both)(affine), jax.tree.map(jnp.add, *separate), rtol=1e-5, atol=1e-5
    )


def test_one_compilation_per_shape_and_variant(key):
    traces = []

    class Counting:
        def __call__(self, *args, **kwargs):
            traces.append(1)
            return jbn.Standard()(*args, **kwargs)

        def __hash__(self):
            return 1

        def __eq__(self, other):
            return isinstance(other, Counting)

    affine, stats = jbn.init(3)
    for seed in range(3):
        x = jax.random.normal(jax.random.key(seed), (8, 3))
        _, stats = jbn.batch_norm(x, affine, stats, variant=Counting(), momentum=0.1 * seed)
        jbn.batch_norm(x, affine, stats, variant=Counting(), epsilon=1e-3 * (seed + 1))
    assert len(traces) == 1
    jbn.batch_norm(x[:4], affine, stats, variant=Counting())
    assert len(traces) == 2


def test_a_model_compiles_once(key):
    affine, stats = jbn.init(3)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(x, affine, stats):
        return jbn.batch_norm(x, affine, stats)

    for seed in range(3):
        _, stats = step(jax.random.normal(jax.random.key(seed), (8, 3)), affine, stats)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_one_array_waits_for_the_backward_pass(key, dtype, masked):
    shape = (64, 32)
    x, affine, _ = draw(key, shape)
    x = x.astype(dtype)
    mask = (jnp.arange(shape[0]) > 5)[:, None] if masked else None

    def function(x, affine):
        return jbn.batch_norm(x, affine, jbn.init(shape[-1])[1], mask=mask)[0]

    # The mask's zeros are listed too, but a broadcast constant takes no memory.
    kept = [a for a, how in saved_residuals(function, x, affine) if "broadcast_in_dim" not in how]
    large = [aval.dtype for aval in kept if aval.size == x.size and aval.dtype != bool]
    assert large == [dtype], kept


def test_y_has_the_type_of_x_and_state_keeps_its_own():
    x = jnp.ones((4, 2), jnp.bfloat16) * jnp.arange(4, dtype=jnp.bfloat16)[:, None]
    affine, stats = jbn.init(2, jnp.bfloat16)
    y, new = jbn.batch_norm(x, affine, stats)
    assert y.dtype == affine.scale.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in new} == {jnp.dtype("float32")}
    with jax.enable_x64(True):
        y, new = jbn.batch_norm(x.astype(jnp.float64), *jbn.init(2))
        assert (y.dtype, new.mean.dtype) == (jnp.float64, jnp.float32)
