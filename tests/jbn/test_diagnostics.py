"""Measures of gradients and weights against closed forms and numpy in float64; all together."""

import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jbn import diagnostics

RNG = np.random.default_rng(0)


def tree(*shape):
    """Arrays of different sizes, with `shape` in front."""
    draw = {"b": {"kernel": (3, 4), "bias": (4,)}, "a": (2,)}
    arrays = jax.tree.map(
        lambda s: jnp.asarray(RNG.normal(size=shape + s), jnp.float32),
        draw,
        is_leaf=lambda s: isinstance(s, tuple),
    )
    return arrays


def flat(tree):
    return np.concatenate([np.ravel(np.float64(leaf)) for leaf in jax.tree.leaves(tree)])


def times(tree, number):
    return jax.tree.map(lambda leaf: leaf * jnp.asarray(number, leaf.dtype), tree)


# Gradients.


def test_gradient_norms_by_array_layer_and_whole():
    g = tree()
    by_array = diagnostics.gradient_norms(g)
    assert set(by_array) == {"a", "b/bias", "b/kernel"}
    np.testing.assert_allclose(by_array["b/kernel"], np.linalg.norm(g["b"]["kernel"]), rtol=1e-6)
    by_layer = diagnostics.gradient_norms(g, depth=1)
    assert set(by_layer) == {"a", "b"}
    np.testing.assert_allclose(by_layer["b"], np.linalg.norm(flat(g["b"])), rtol=1e-6)
    np.testing.assert_allclose(
        diagnostics.gradient_norms(g, depth=0)[""], np.linalg.norm(flat(g)), rtol=1e-6
    )
    assert set(diagnostics.gradient_norms([g["a"], (g["a"],)])) == {"0", "1/0"}
    with pytest.raises(ValueError, match="at least one array, got {}"):
        diagnostics.gradient_norms({})


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_lengths_whose_squares_float32_cannot_hold(scale):
    a, b = tree(), tree()
    big_a, big_b = times(a, scale), times(b, scale)
    whole = diagnostics.gradient_norms(big_a, depth=0)[""]
    np.testing.assert_allclose(whole, scale * np.linalg.norm(flat(a)), rtol=1e-5)
    cosine, distance = diagnostics.gradient_cosine, diagnostics.gradient_distance
    np.testing.assert_allclose(cosine(big_a, big_b), cosine(a, b), rtol=1e-5)
    np.testing.assert_allclose(distance(big_a, big_b), scale * distance(a, b), rtol=1e-5)
    gradients = times(tree(5), scale)
    ratio = diagnostics.gradient_noise_scale(gradients, batch_size=4).noise_scale
    unscaled = diagnostics.gradient_noise_scale(times(gradients, 1 / scale), batch_size=4)
    np.testing.assert_allclose(ratio, unscaled.noise_scale, rtol=1e-4)
    assert jnp.isfinite(diagnostics.relative_noise(gradients))


def test_zero_has_length_zero_and_no_direction():
    zero = times(tree(), 0)
    assert diagnostics.gradient_norms(zero, depth=0)[""] == 0
    assert jnp.isnan(diagnostics.gradient_cosine(zero, tree()))


def test_cosine_and_distance_of_two_gradients():
    a, b = tree(), tree()
    u, v = flat(a), flat(b)
    expected = u @ v / np.linalg.norm(u) / np.linalg.norm(v)
    np.testing.assert_allclose(diagnostics.gradient_cosine(a, b), expected, atol=1e-6)
    np.testing.assert_allclose(diagnostics.gradient_cosine(a, times(a, -3)), -1, atol=1e-6)
    np.testing.assert_allclose(
        diagnostics.gradient_distance(a, b), np.linalg.norm(u - v), rtol=1e-6
    )


def test_noise_scale_is_the_papers_estimator():
    # Appendix A.1, as written there: from squared norms at a small and a large batch size.
    gradients = tree(6)
    rows = np.stack([flat(jax.tree.map(lambda g, k=k: g[k], gradients)) for k in range(6)])
    small, large = 8, 48
    squared_small, squared_large = np.mean(np.sum(rows**2, 1)), np.sum(rows.mean(0) ** 2)
    squared_norm = (large * squared_large - small * squared_small) / (large - small)
    trace = (squared_small - squared_large) / (1 / small - 1 / large)
    found = diagnostics.gradient_noise_scale(gradients, batch_size=8)
    np.testing.assert_allclose(found.trace, trace, rtol=1e-4)
    np.testing.assert_allclose(found.squared_norm, squared_norm, rtol=1e-4)
    np.testing.assert_allclose(found.noise_scale, trace / squared_norm, rtol=1e-4)


def test_noise_scale_is_unbiased():
    # Examples' gradients of covariance 4 I and mean (1, 1, 1): trace 12, squared norm 3.
    def estimate(key):
        examples = 1 + 2 * jax.random.normal(key, (3, 5, 3))
        return diagnostics.gradient_noise_scale(jnp.mean(examples, 1), batch_size=5)

    found = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(0), 20_000))
    # Standard errors 0.06 and 0.02; the biased estimates would be 8 and 3.8.
    np.testing.assert_allclose(found.trace.mean(), 12, atol=0.25)
    np.testing.assert_allclose(found.squared_norm.mean(), 3, atol=0.1)


def test_relative_noise_of_agreement_of_noise_and_of_batches():
    same = jax.tree.map(lambda g: jnp.stack([g, g, g]), tree())
    np.testing.assert_allclose(diagnostics.relative_noise(same), 0, atol=1e-6)
    g = tree(7)
    rows = np.stack([flat(jax.tree.map(lambda g, k=k: g[k], g)) for k in range(7)])
    spread = np.sqrt(np.mean(np.sum((rows - rows.mean(0)) ** 2, 1)))
    expected = spread / np.linalg.norm(rows.mean(0))
    np.testing.assert_allclose(diagnostics.relative_noise(g), expected, rtol=1e-5)
    many = 1 + jax.random.normal(jax.random.key(0), (4000, 3))
    scale = diagnostics.gradient_noise_scale(many, batch_size=5).noise_scale
    np.testing.assert_allclose(diagnostics.relative_noise(many) ** 2, scale / 5, rtol=1e-2)


def test_noise_needs_two_batches():
    for gradients in (jnp.ones((1, 3)), jnp.ones(()), {"a": jnp.ones((2, 3)), "b": jnp.ones(3)}):
        with pytest.raises(ValueError, match="one leading axis over two batches or more"):
            diagnostics.gradient_noise_scale(gradients, batch_size=4)
    with pytest.raises(ValueError, match=r"batch_size must lie in \(0, inf\], got 0"):
        diagnostics.gradient_noise_scale(jnp.ones((2, 3)), batch_size=0)


# Weights.


def test_angles_of_arrays_and_of_neurons():
    w, g = tree(), tree()
    kernel, slope = np.float64(w["b"]["kernel"]), np.float64(g["b"]["kernel"])

    def cosine(u, v, axis):
        return (u * v).sum(axis) / np.sqrt((u**2).sum(axis) * (v**2).sum(axis))

    for per_neuron, axis in ((False, None), (True, 0)):
        expected = cosine(kernel, slope, axis)
        found = diagnostics.weight_gradient_cosine(w, g, per_neuron=per_neuron)
        np.testing.assert_allclose(found["b"]["kernel"], expected, atol=1e-6)
        angle = diagnostics.weight_gradient_angle(w, g, per_neuron=per_neuron)
        np.testing.assert_allclose(angle["b"]["kernel"], np.arccos(expected), rtol=1e-5)
        rates = diagnostics.effective_learning_rate(w, 0.3, per_neuron=per_neuron)
        np.testing.assert_allclose(rates["b"]["kernel"], 0.3 / (kernel**2).sum(axis), rtol=1e-5)
    conv, other = (jnp.asarray(RNG.normal(size=(2, 2, 3, 5)), jnp.float32) for _ in range(2))
    found = diagnostics.weight_gradient_cosine(conv, other, per_neuron=True)
    np.testing.assert_allclose(found, cosine(conv, other, (0, 1, 2)), atol=1e-6)


def direction(w, rate, steps, *, momentum=0.0, adaptive=False):
    """Where `steps` of an optimizer turn a weight whose scale does not matter, in numpy."""
    velocity, first, second = 0.0, 0.0, 0.0
    for t in range(1, steps + 1):
        u = w / np.linalg.norm(w)
        g = np.array([1.0, -2.0, 0.5]) * u**2
        g = (g - u * (u @ g)) / np.linalg.norm(w)
        velocity = momentum * velocity + g
        first, second = 0.9 * first + 0.1 * g, 0.99 * second + 0.01 * g**2
        adam = first / (1 - 0.9**t) / np.sqrt(second / (1 - 0.99**t))
        w = w - rate * (adam if adaptive else velocity)
    return w / np.linalg.norm(w)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"adaptive": True}], ids=str)
def test_weights_of_one_effective_rate_take_the_same_course(options):
    w, rate = np.array([1.0, 2.0, -0.5]), 0.01
    small, large = (
        float(diagnostics.effective_learning_rate(jnp.float32(v), rate, **options))
        for v in (w, 10 * w)
    )
    there = direction(w, rate, 40, **options)
    same = direction(10 * w, rate * small / large, 40, **options)
    np.testing.assert_allclose(same, there, atol=1e-6)
    assert np.abs(there - w / np.linalg.norm(w)).max() > 0.01


def test_momentum_multiplies_the_effective_rate():
    w, rate = np.array([1.0, 2.0, -0.5]), 1e-3
    one, more = (
        float(diagnostics.effective_learning_rate(jnp.float32(w), rate, momentum=m))
        for m in (0.0, 0.9)
    )
    slow = direction(w, rate * more / one, 300)
    np.testing.assert_allclose(direction(w, rate, 300, momentum=0.9), slow, atol=0.02)
    assert np.abs(direction(w, rate, 300) - slow).max() > 0.2
    with pytest.raises(ValueError, match="Leave the momentum out"):
        diagnostics.effective_learning_rate(jnp.float32(w), rate, momentum=0.9, adaptive=True)
    assert diagnostics.effective_learning_rate(jnp.zeros(3), rate) == jnp.inf


@pytest.mark.parametrize("angle", [1e-6, 1e-4, 0.1, 1.5, np.pi - 1e-4])
def test_angular_update_keeps_its_digits(angle):
    # Rotations in the plane of two random directions, with a change of length.
    q = np.linalg.qr(RNG.normal(size=(50, 2)))[0]
    before, after = q[:, 0], 7 * (np.cos(angle) * q[:, 0] + np.sin(angle) * q[:, 1])
    with jax.enable_x64(True):
        found = diagnostics.angular_update(jnp.asarray(before), jnp.asarray(after))
        np.testing.assert_allclose(found, angle, rtol=1e-9)
        assert found.dtype == jnp.float64
    if angle > 1e-6:
        found = diagnostics.angular_update(jnp.float32(before), jnp.float32(after))
        np.testing.assert_allclose(found, angle, rtol=2e-3 if angle < 1e-3 else 1e-5)


def test_weights_without_a_scale_are_at_right_angles_to_their_gradient():
    w, x = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32), jnp.asarray(RNG.normal(size=(8, 4)))

    def loss_fn(w):
        h = x.astype(w.dtype) @ w
        return jnp.sum(jnp.tanh(h / jnp.std(h, axis=0, keepdims=True)) ** 3)

    found = diagnostics.weight_gradient_cosine(w, jax.grad(loss_fn)(w), per_neuron=True)
    np.testing.assert_allclose(found, np.zeros(3), atol=2e-6)


def test_angles_name_the_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"agree in shape, got \(2, 3\) and \(3, 2\)"):
        diagnostics.angular_update(jnp.ones((2, 3)), jnp.ones((3, 2)))
    with pytest.raises(ValueError, match="arrays of shape .*, got a scalar"):
        diagnostics.effective_learning_rate(jnp.ones(()), 0.1, per_neuron=True)


# All of them.


def everything(x):
    """Every function of arrays, in one program; x is (4, 5, 3)."""
    a, b = {"w": x[0], "v": x[1, 0]}, {"w": x[2], "v": x[3, 0]}
    return {
        "norms": diagnostics.gradient_norms(a),
        "scale": diagnostics.gradient_noise_scale(x, batch_size=2),
        "noise": diagnostics.relative_noise(x),
        "cosine": diagnostics.gradient_cosine(a, b),
        "distance": diagnostics.gradient_distance(a, b),
        "weight cosine": diagnostics.weight_gradient_cosine(a, b, per_neuron=True),
        "weight angle": diagnostics.weight_gradient_angle(a, b),
        "update": diagnostics.angular_update(a, b, per_neuron=True),
        "rate": diagnostics.effective_learning_rate(a, 0.1, momentum=0.5),
        "Adam's rate": diagnostics.effective_learning_rate(a, 0.1, adaptive=True),
        "batch": diagnostics.batch_dependence(
            jnp.sort, x, jax.random.key(0), batch_size=2, redraws=2
        ),
        "percentiles": diagnostics.activation_percentiles(x),
        "dead": diagnostics.dead_units(x),
        "isometry": diagnostics.isometry_gap(x),
        "rank": diagnostics.effective_rank(x),
        "ratio": diagnostics.participation_ratio(x),
        "orthogonality": diagnostics.orthogonality_gap(x),
        "alike": diagnostics.mean_absolute_cosine(x),
        "shift": diagnostics.activation_shift(x[0], x[1]),
    }


def test_functions_of_arrays_under_jit_vmap_and_scan():
    x = jnp.asarray(RNG.normal(size=(2, 4, 5, 3)), jnp.float32)
    one = jax.jit(everything)
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), one(x[0]), one(x[1]))
    chex.assert_trees_all_close(jax.jit(jax.vmap(everything))(x), expected, rtol=1e-4, atol=1e-6)
    scanned = jax.jit(lambda x: jax.lax.scan(lambda c, x: (c, everything(x)), 0, x)[1])(x)
    chex.assert_trees_all_close(scanned, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "kept"),
    [(jnp.bfloat16, jnp.float32), (jnp.float32, jnp.float32), (jnp.float64, jnp.float64)],
)
def test_results_are_at_least_float32(given, kept):
    with jax.enable_x64(True):
        found = jax.eval_shape(everything, jax.ShapeDtypeStruct((4, 5, 3), given))
    kinds = {path[0].key: leaf.dtype for path, leaf in jax.tree_util.tree_leaves_with_path(found)}
    assert kinds.pop("dead") == jnp.dtype(bool)
    assert set(kinds.values()) == {jnp.dtype(kept)}


def test_the_contents_page_is_asked_for_by_name():
    code = "import sys, jbn; print('jbn.diagnostics' in sys.modules)"
    code += "; from jbn import diagnostics; print({'flax', 'optax', 'chex'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "set()"]


SIGNATURES = """
from jaxtyping import install_import_hook
with install_import_hook("jbn", "beartype.beartype"):
    from jbn import diagnostics
import sys
import jax, jax.numpy as jnp
sys.path += ["tests", "tests/jbn"]
import test_diagnostics
from losses import network
from test_diagnostics_landscape import measure
jax.eval_shape(test_diagnostics.everything, jnp.ones((4, 5, 3)))
jax.eval_shape(measure, network()[1])
print("checked")
"""


def test_functions_match_their_annotations():
    run = subprocess.run([sys.executable, "-c", SIGNATURES], capture_output=True, text=True)
    assert run.stdout.strip() == "checked", run.stderr
