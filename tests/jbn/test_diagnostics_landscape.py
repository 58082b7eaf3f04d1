"""Landscape and covariate shift against known spectra, the explicit Hessian and plain loops."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from losses import BASIS, KEY, SPECTRUM, network, quadratic

from jbn import diagnostics


def eigenvalues(loss_fn, params, **options):
    """In one program, which takes less time to compile than its parts."""
    found = jax.jit(lambda p: diagnostics.hessian_eigenvalues(loss_fn, p, KEY, **options))
    return found(params)


@pytest.mark.parametrize(
    ("which", "expected"),
    [("largest", [9, 4, 4]), ("smallest", [-1, -2, -12]), ("both", [9, 4, 4, -1, -2, -12])],
)
def test_lanczos_finds_a_known_spectrum(which, expected):
    loss_fn, params = quadratic()
    found = eigenvalues(loss_fn, params, k=3, which=which)
    # 4 twice: a start vector alone reaches one of them.
    chex.assert_trees_all_close(found.values, jnp.array(expected, jnp.float32), atol=2e-5)
    assert found.residuals.max() < 1e-4


def test_lanczos_finds_the_spectrum_of_an_explicit_hessian():
    loss_fn, params = network()
    flat, unravel = ravel_pytree(params)
    hessian = jax.jit(jax.hessian(lambda w: loss_fn(unravel(w))))(flat)
    expected = jnp.linalg.eigvalsh(hessian)[::-1]
    found = eigenvalues(loss_fn, params, k=flat.size // 2, which="both")
    both = jnp.concatenate([expected[: flat.size // 2], expected[-(flat.size // 2) :]])
    chex.assert_trees_all_close(found.values, both, atol=1e-5)
    vectors = jax.vmap(lambda tree: ravel_pytree(tree)[0])(found.vectors)
    chex.assert_trees_all_close(vectors @ vectors.T, jnp.eye(len(both)), atol=1e-4)
    # H v = lambda v ties each vector to its value.
    chex.assert_trees_all_close(vectors @ hessian, both[:, None] * vectors, atol=1e-4)


def test_few_iterations_have_honest_residuals():
    loss_fn, params = quadratic()
    found = eigenvalues(loss_fn, params, which="both", iterations=4)
    assert found.residuals.max() > 1e-2
    distance = np.abs(np.asarray(found.values)[:, None] - SPECTRUM).min(axis=1)
    assert (distance <= np.asarray(found.residuals) + 1e-5).all()
    flat = jax.vmap(lambda tree: ravel_pytree(tree)[0])(found.vectors)
    gradient = jax.grad(loss_fn)
    product = ravel_pytree(gradient(jax.tree.map(lambda v: v[0], found.vectors)))[0]
    residual = jnp.linalg.norm(product - found.values[0] * flat[0])
    chex.assert_trees_all_close(found.residuals[0], residual, rtol=1e-4)


@pytest.mark.parametrize("value", [3.0, 0.0])
def test_lanczos_goes_on_where_the_first_direction_reaches_no_further(value):
    loss_fn, params = quadratic(np.full(12, value))
    found = eigenvalues(loss_fn, params, k=12)
    chex.assert_trees_all_close(found.values, jnp.full(12, value), atol=1e-5)
    chex.assert_tree_all_finite(found)


def test_lanczos_keeps_its_directions_orthogonal():
    # Without that, an eigenvalue far above the rest comes again and again.
    loss_fn, params = quadratic(np.array([1e4] + [1.0 / i for i in range(1, 12)]))
    found = eigenvalues(loss_fn, params, k=3)
    expected = jnp.array([1e4, 1.0, 0.5])
    chex.assert_trees_all_close(found.values, expected, atol=0.01, rtol=1e-6)


def test_eigenvalues_in_double_precision():
    with jax.enable_x64(True):
        loss_fn, params = quadratic(dtype=jnp.float64)
        found = eigenvalues(loss_fn, params, which="both")
        chex.assert_trees_all_close(found.values, jnp.array([9.0, -12.0]), atol=1e-12)
        assert found.residuals.max() < 1e-12


def test_eigenvalues_of_parameters_of_mixed_precision():
    def loss_fn(params):
        assert params["half"].dtype == jnp.bfloat16
        return 2 * jnp.sum(params["half"].astype(jnp.float32) ** 2) - params["full"] ** 2

    params = {"half": jnp.ones(3, jnp.bfloat16), "full": jnp.array(1.0)}
    found = eigenvalues(loss_fn, params, which="both")
    chex.assert_trees_all_close(found.values, jnp.array([4.0, -2.0]), rtol=1e-2)
    assert found.vectors["half"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"which": "top"}, "which must be one of largest, smallest, both, got 'top'"),
        ({"k": 0}, "k=0 .*asks for 0 eigenvalues"),
        ({"k": 7, "which": "both"}, r"asks for 14 eigenvalues of min.* = 12"),
        ({"k": 4, "iterations": 3}, r"asks for 4 .* = 3"),
    ],
)
def test_eigenvalues_that_cannot_be_had(options, message):
    loss_fn, params = quadratic()
    with pytest.raises(ValueError, match=message):
        eigenvalues(loss_fn, params, **options)


def test_hessian_vector_product_is_the_hessian_times_the_vector():
    loss_fn, params = network()
    vector = jax.tree.map(lambda w: jnp.sin(3 * w), params)
    flat, unravel = ravel_pytree(params)
    expected = jax.jit(jax.hessian(lambda w: loss_fn(unravel(w))))(flat) @ ravel_pytree(vector)[0]
    found = diagnostics.hessian_vector_product(loss_fn, params, vector)
    chex.assert_trees_all_close(found, unravel(expected), atol=1e-5)


def test_along_the_gradient_of_a_quadratic():
    # From an eigenvector: L = 9/2 (1 - 9a)^2, gradient 9 (1 - 9a), smoothness 9 everywhere.
    loss_fn, _ = quadratic()
    start = jnp.asarray(BASIS[:, 0], jnp.float32)
    steps = jnp.array([0.05, 0.3, 0.1])
    seen = diagnostics.along_gradient(loss_fn, start, steps)
    loss = 4.5 * (1 - 9 * steps) ** 2
    chex.assert_trees_all_close(seen.loss, loss, rtol=1e-4)
    chex.assert_trees_all_close(seen.gradient_distance, 81 * steps, rtol=1e-5)
    chex.assert_trees_all_close(seen.loss_variation, loss.max() - loss.min(), rtol=1e-4)
    chex.assert_trees_all_close(seen.gradient_predictiveness, 81 * 0.3, rtol=1e-5)
    chex.assert_trees_all_close(seen.beta_smoothness, 9.0, rtol=1e-5)
    chex.assert_trees_all_close(seen.gradient_norm, 9.0, rtol=1e-5)


def test_along_the_gradient_of_a_network_is_a_loop_over_steps():
    loss_fn, params = network()
    gradient = jax.grad(loss_fn)(params)
    g = ravel_pytree(gradient)[0]
    steps = [0.4, 0.01, 0.1]
    losses, distances = [], []
    for a in steps:
        there = jax.tree.map(lambda w, d, a=a: w - a * d, params, gradient)
        losses.append(float(loss_fn(there)))
        distances.append(float(jnp.linalg.norm(ravel_pytree(jax.grad(loss_fn)(there))[0] - g)))
    slopes = [d / (a * float(jnp.linalg.norm(g))) for a, d in zip(steps, distances, strict=True)]
    seen = diagnostics.along_gradient(loss_fn, params, jnp.array(steps))
    # The largest slope is at another step than the largest distance.
    assert np.argmax(slopes) != np.argmax(distances)
    np.testing.assert_allclose(seen.loss, losses, rtol=1e-5)
    np.testing.assert_allclose(seen.gradient_distance, distances, rtol=1e-4)
    np.testing.assert_allclose(seen.loss_variation, max(losses) - min(losses), rtol=1e-4)
    np.testing.assert_allclose(seen.gradient_predictiveness, max(distances), rtol=1e-4)
    np.testing.assert_allclose(seen.beta_smoothness, max(slopes), rtol=1e-3)


def test_a_step_of_zero_adds_only_the_loss_at_the_start():
    loss_fn, params = network()
    seen = diagnostics.along_gradient(loss_fn, params, jnp.array([0.0, 0.1]))
    alone = diagnostics.along_gradient(loss_fn, params, jnp.array([0.1]))
    chex.assert_trees_all_close(seen.loss[0], loss_fn(params))
    chex.assert_trees_all_close(seen.beta_smoothness, alone.beta_smoothness)
    assert alone.loss_variation == 0 < seen.loss_variation
    with pytest.raises(ValueError, match=r"a vector of at least one, got shape \(\)"):
        diagnostics.along_gradient(loss_fn, params, 0.1)


ORDER = [("layer_1", "shift"), "layer_2", "layer_10"]


def test_gradient_shift_moves_the_layers_below_and_no_others():
    loss_fn, params = network()
    moved = jax.tree.map(lambda w: w + 0.3 * jnp.cos(5 * w), params)
    found = diagnostics.gradient_shift(loss_fn, params, moved, ORDER)
    keys = [("layer_1", "shift"), ("layer_2",), ("layer_10",)]
    below: tuple[str, ...] = ()
    for i, layer in enumerate(keys):
        mixed = {name: (moved if name in below else params)[name] for name in params}
        g, g_moved = (
            ravel_pytree({name: jax.grad(loss_fn)(w)[name] for name in layer})[0]
            for w in (params, mixed)
        )
        cosine = g @ g_moved / jnp.linalg.norm(g) / jnp.linalg.norm(g_moved)
        np.testing.assert_allclose(found.distance[i], jnp.linalg.norm(g - g_moved), atol=1e-6)
        np.testing.assert_allclose(found.cosine[i], cosine, atol=1e-6)
        np.testing.assert_allclose(found.gradient_norm[i], jnp.linalg.norm(g), rtol=1e-5)
        below += layer
    assert found.distance[0] < 1e-6 < 1e-2 < found.distance[1:].min()


def test_gradient_shift_of_part_of_a_network_leaves_the_rest():
    loss_fn, params = network()
    moved = jax.tree.map(lambda w: w + 1, params)
    layers, rest = ["layer_1/kernel", "layer_10"], ["layer_2", "shift"]
    part = diagnostics.gradient_shift(loss_fn, params, moved, layers, unmoved=rest)
    only = {**params, "layer_1": moved["layer_1"]}
    expected = jax.grad(loss_fn)(params)["layer_10"]["kernel"]
    expected = jnp.linalg.norm(expected - jax.grad(loss_fn)(only)["layer_10"]["kernel"])
    chex.assert_trees_all_close(part.distance[1], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["layer_1", "layer_3"], "'layer_3' names no array of params, which has layer_1/kernel"),
        (["layer"], "'layer' names no array"),
        (["layer_1", "layer_1/kernel"], "layers must be disjoint"),
        ([], "at least one"),
        (["layer_1", "layer_10"], r"layers leave layer_2/kernel, shift unmoved. Put each"),
    ],
)
def test_gradient_shift_names_layers_that_are_not_there(layers, message):
    loss_fn, params = network()
    with pytest.raises(ValueError, match=message):
        diagnostics.gradient_shift(loss_fn, params, params, layers)


def measure(params):
    """Every function of a loss, in one program."""
    loss_fn, _ = network()
    there = jax.tree.map(lambda w: w * 0.9, params)
    found = eigenvalues(loss_fn, params, which="both", iterations=24)
    return (
        diagnostics.sharpness(loss_fn, params, KEY, learning_rate=0.1, iterations=24),
        diagnostics.hessian_trace(loss_fn, params, KEY, probes=4),
        diagnostics.along_gradient(loss_fn, params, jnp.array([0.1, 0.2])),
        diagnostics.gradient_shift(loss_fn, params, there, ORDER),
        diagnostics.hessian_vector_product(loss_fn, params, there),
        found.values,
    )


def test_functions_of_a_loss_under_jit_vmap_and_scan():
    _, params = network()
    runs = jax.tree.map(lambda w: jnp.stack([w, 0.5 * w]), params)
    alone = jax.jit(measure)
    expected = [alone(jax.tree.map(lambda w, i=i: w[i], runs)) for i in range(2)]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *expected)
    chex.assert_trees_all_close(jax.jit(jax.vmap(measure))(runs), expected, rtol=1e-3, atol=1e-5)
    scanned = jax.jit(lambda runs: jax.lax.scan(lambda c, run: (c, measure(run)), 0, runs)[1])
    chex.assert_trees_all_close(scanned(runs), expected, rtol=1e-3, atol=1e-5)
