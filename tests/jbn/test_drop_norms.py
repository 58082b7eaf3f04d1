"""A model without its folded norms: the same output, less work, and no other variables."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jbn.linen
import jbn.nnx

X = jax.random.normal(jax.random.key(0), (2, 8, 8, 4), jnp.bfloat16)
MEAN, VAR = jnp.array([-0.4, -0.2, 0.1, 0.3]), jnp.array([0.5, 1.0, 2.0, 3.0])


class Net(nn.Module):
    norm: type = jbn.linen.BatchNorm

    @nn.compact
    def __call__(self, x, train=False):
        for n, use_bias in enumerate((True, False)):
            x = nn.Conv(4, (3, 3), use_bias=use_bias, name=f"conv{n}")(x)
            x = nn.relu(self.norm(use_running_average=not train, name=f"norm{n}")(x))
        return x


class Nnx(nnx.Module):
    def __init__(self, norm):
        rngs = nnx.Rngs(0)
        self.convs = nnx.List(
            nnx.Conv(4, 4, (3, 3), use_bias=use_bias, rngs=rngs) for use_bias in (True, False)
        )
        self.norms = nnx.List(norm(4, rngs=rngs) for _ in range(2))
        for norm in self.norms:
            norm.mean[...], norm.var[...] = MEAN, VAR

    def __call__(self, x):
        for conv, norm in zip(self.convs, self.norms):
            x = nnx.relu(norm(conv(x)))
        return x


def work(function, *args):
    """Floating-point operations, and normalisations, in the compiled program."""
    compiled = jax.jit(function).lower(*args).compile()
    return compiled.cost_analysis()["flops"], compiled.as_text().count(" rsqrt(")


@pytest.fixture(autouse=True)
def _flax_promotes():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def linen():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        variables = Net().init(jax.random.key(0), X)
        stats = {"mean": MEAN, "var": VAR}
        variables["batch_stats"] = {name: dict(stats) for name in variables["batch_stats"]}
        return variables, jbn.linen.fold(Net(), variables, X)


@pytest.mark.parametrize("norm", [jbn.linen.BatchNorm, nn.BatchNorm])
def test_a_linen_model_does_less(linen, norm):
    variables, (folded, report) = linen
    assert set(report.folded) == {"norm0", "norm1"}
    model = Net(norm)
    apply, smaller = jbn.linen.drop_norms(model.apply, folded, report)
    assert smaller["params"].keys() == {"conv0", "conv1"}
    assert smaller["batch_stats"].keys() == {"norm1"}  # conv1 has no bias
    assert smaller["batch_stats"]["norm1"].keys() == {"mean"}
    x = X.astype(jnp.float32) + 1
    expected = model.apply(variables, x)
    chex.assert_trees_all_close(jax.jit(apply)(smaller, x), expected, rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_equal_dtypes(apply(smaller, X), model.apply(variables, X))
    before, after = work(model.apply, variables, x), work(apply, smaller, x)
    assert after[0] <= before[0] - 3 * 2 * x[..., :1].size
    assert (before[1], after[1]) == (2, 0)


@pytest.mark.parametrize("norm", [jbn.nnx.BatchNorm, nnx.BatchNorm])
def test_an_nnx_model_does_less(norm):
    model = Nnx(norm)
    model.eval()
    x = X.astype(jnp.float32)
    folded, report = jbn.nnx.fold(model, x)
    before = jax.tree.map(jnp.copy, nnx.state(folded))
    faster = jbn.nnx.drop_norms(folded, report)
    chex.assert_trees_all_equal(nnx.state(folded), before)
    chex.assert_trees_all_close(faster(x + 1), model(x + 1), rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_equal_dtypes(faster(X), model(X))
    assert not jax.tree.leaves(nnx.state(faster.norms[0]))
    assert len(jax.tree.leaves(nnx.state(faster.norms[1]))) == 1

    def flops(model):
        graphdef, state = nnx.split(model)
        return work(lambda state, x: nnx.merge(graphdef, state)(x), state, x)

    (more, normalises), (less, does_not) = flops(model), flops(faster)
    assert less <= more - 3 * 2 * x[..., :1].size
    assert (normalises, does_not) == (2, 0)

    faster.train()
    with pytest.raises(ValueError, match="norms/0 was folded and dropped.*as for inference"):
        faster(x)
    with pytest.raises(ValueError, match="norms/0 still normalises: fold it first"):
        jbn.nnx.drop_norms(model, report)
    with pytest.raises(ValueError, match="the model has no norms/0, norms/1"):
        jbn.nnx.drop_norms(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), report)


def test_other_variables_and_training_are_refused(linen):
    variables, (folded, report) = linen
    apply, smaller = jbn.linen.drop_norms(Net().apply, folded, report)
    for wrong in (variables, folded):
        with pytest.raises(ValueError, match="hold norm0. Pass those that drop_norms returned"):
            apply(wrong, X)
    with pytest.raises(ValueError, match="norm0 was folded and dropped"):
        apply(smaller, X, train=True)
    with pytest.raises(ValueError, match="norm0 still normalises: fold it first"):
        jbn.linen.drop_norms(Net().apply, variables, report)
    # Without scale and bias only the variance, the same for all features, tells 1 - epsilon.
    alike = {"params": variables["params"], "batch_stats": folded["batch_stats"].copy()}
    alike["batch_stats"]["norm0"] = {"mean": MEAN, "var": jnp.ones(4)}
    apply, smaller = jbn.linen.drop_norms(Net().apply, alike, report)
    with pytest.raises(ValueError, match="norm0 still normalises in these variables"):
        apply(smaller, X)


def test_a_norm_with_a_call_of_its_own_is_refused(linen):
    class Doubled(nn.BatchNorm):
        @nn.compact
        def __call__(self, x):
            return 2 * super().__call__(x)

    class NnxDoubled(nnx.BatchNorm):
        def __call__(self, x):
            return 2 * super().__call__(x)

    _, (folded, report) = linen
    apply, smaller = jbn.linen.drop_norms(Net(Doubled).apply, folded, report)
    with pytest.raises(TypeError, match="Doubled is a batch norm of its own"):
        apply(smaller, X)
    model, report = jbn.nnx.fold(Nnx(NnxDoubled), X)
    with pytest.raises(TypeError, match="norms/0 is a NnxDoubled of its own"):
        jbn.nnx.drop_norms(model, report)
