"""Dependence of outputs on their batch, against every batch that there is."""

from functools import partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jbn
from jbn import diagnostics

X = 3 + jax.random.normal(jax.random.key(0), (6, 2)) * jnp.array([[1.0, 0.1]])
KEY = jax.random.key(1)


def batch_norm(x, **options):
    return jbn.batch_norm(x, *jbn.init(x.shape[-1]), **options)[0]


def every_batch(function, x, batch_size):
    """The share of variance that the batch explains, over all batches, in numpy."""
    n = len(x)
    outputs = []
    for i in range(n):
        others = combinations([j for j in range(n) if j != i], batch_size - 1)
        outputs.append([function(x[[i, *rest]])[0] for rest in others])
    y = np.array(outputs)
    within = y.var(axis=1).mean(axis=0).sum()
    return within / (within + y.mean(axis=1).var(axis=0, ddof=1).sum())


@pytest.mark.parametrize("batch_size", [2, 3])
def test_batch_norm_against_every_batch(batch_size):
    x = np.float64(X)
    expected = every_batch(lambda x: (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), x, batch_size)
    measure = partial(diagnostics.batch_dependence, batch_norm, batch_size=batch_size)
    found = jax.jit(partial(measure, redraws=4000))(X, KEY)
    np.testing.assert_allclose(found, expected, rtol=0.03)
    # Few redraws have the same mean: the parts are unbiased, the ratio nearly.
    few = jax.jit(jax.vmap(partial(measure, X, redraws=4)))(jax.random.split(KEY, 500))
    np.testing.assert_allclose(few.mean(), expected, rtol=0.1)


def test_what_does_not_look_at_the_batch():
    measure = partial(diagnostics.batch_dependence, key=KEY, batch_size=3)
    stats = jbn.RunningStats(jnp.ones(2), jnp.ones(2))

    def layer_norm(x):
        return (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)

    for fn in (layer_norm, lambda x: jbn.normalize(x, *stats), lambda x: 0 * x):
        assert measure(fn, X) == 0
    running = lambda x: batch_norm(x, variant=jbn.Running())  # noqa: E731
    assert measure(running, X) == 0
    # All in a batch are alike: only the batch decides.
    alike = lambda x: jnp.broadcast_to(x.mean(0, keepdims=True), x.shape)  # noqa: E731
    many = jax.random.normal(KEY, (512, 2))
    assert measure(alike, many, batch_size=128) > 0.95


def test_larger_batches_decide_less_and_no_scale_matters():
    x = jax.random.normal(KEY, (256, 4))
    measure = partial(diagnostics.batch_dependence, examples=x, key=KEY, redraws=4)
    small, large = (measure(batch_norm, batch_size=b) for b in (4, 64))
    assert small > 9 * large > 0
    scaled = measure(lambda x: 1e30 * batch_norm(x), batch_size=64)
    np.testing.assert_allclose(scaled, large, rtol=1e-5)


def test_batches_that_do_not_fit_are_named():
    measure = partial(diagnostics.batch_dependence, batch_norm, X, KEY)
    for batch_size in (4, 6, 0):
        with pytest.raises(ValueError, match=f"batch_size={batch_size} must divide .* got 6"):
            measure(batch_size=batch_size)
    with pytest.raises(ValueError, match="redraws must be at least 2"):
        measure(batch_size=3, redraws=1)
    with pytest.raises(ValueError, match=r"must return 3 outputs for as many, got \(2,\)"):
        diagnostics.batch_dependence(lambda x: x.mean(0), X, KEY, batch_size=3)
