"""Contract of every variant and front-end: one table, pushed through every transformation.

A new variant is covered by joining `VARIANTS`, with what is particular to it said in the row.
"""

import pickle
import runpy
from pathlib import Path
from typing import NamedTuple

import chex
import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

import jbn
import jbn.linen
import jbn.nnx

FEATURES = 6
EXAMPLE = Path(__file__).parents[2] / "examples" / "l1_batch_norm.py"
L1 = runpy.run_path(str(EXAMPLE))["L1"]


class Row(NamedTuple):
    variant: jbn.Variant
    another: jbn.Variant  # not equal to it
    plain: bool = True  # hashable, and its repr makes it again: no arrays inside
    whole: bool = True  # parts on devices give the y and dx of the whole batch
    true_gradient: bool = True  # what it calls its gradient is the gradient of its values


VARIANTS = {
    "Standard": Row(jbn.Standard(), jbn.Running()),
    "Ghost": Row(jbn.Ghost(6), jbn.Ghost(3)),
    "Ghost of Renorm": Row(
        jbn.Ghost(6, base=jbn.Renorm(2.0, 1.0)), jbn.Ghost(6), true_gradient=False
    ),
    "Renorm": Row(jbn.Renorm(1.5, 0.5), jbn.Renorm(1.5, 0.6), true_gradient=False),
    "Running": Row(jbn.Running(), jbn.Standard()),
    "Uncentered": Row(jbn.Uncentered(), jbn.Standard()),
    "Detached": Row(jbn.Detached(), jbn.Detached(mean=False), true_gradient=False),
    "Noisy": Row(jbn.Noisy(jax.random.key(3)), jbn.Standard(), plain=False, whole=False),
    # Written with what is public alone, and not registered with JAX.
    "L1": Row(L1(), jbn.Standard(), plain=False),
}

QUICK = ("Standard", "Ghost of Renorm")  # the rows of `make quick`


def marked(name, *values, id):
    return pytest.param(*values, id=id, marks=() if name in QUICK else pytest.mark.slow)


variants = pytest.mark.parametrize(
    "row", [marked(name, row, id=name) for name, row in VARIANTS.items()]
)


def function(x, affine, stats, row, mask=None, axis_name=None):
    return jbn.batch_norm(
        x, affine, stats, variant=row.variant, momentum=0.5, mask=mask, axis_name=axis_name
    )


def linen(x, affine, stats, row, mask=None, axis_name=None):
    layer = jbn.linen.BatchNorm(
        use_running_average=False,
        momentum=0.5,
        dtype=x.dtype,
        axis_name=axis_name,
        variant=row.variant,
    )
    variables = {"params": affine._asdict(), "batch_stats": stats._asdict()}
    y, updates = layer.apply(variables, x, mask=mask, mutable=["batch_stats"])
    return y, jbn.RunningStats(**updates["batch_stats"])


def nnx(x, affine, stats, row, mask=None, axis_name=None):
    layer = jbn.nnx.BatchNorm(
        FEATURES, momentum=0.5, dtype=x.dtype, axis_name=axis_name, rngs=flax.nnx.Rngs(0)
    )
    for name, value in (affine._asdict() | stats._asdict()).items():
        getattr(layer, name).set_value(value)
    y = layer(x, use_running_average=False, mask=mask, variant=row.variant)
    return y, jbn.RunningStats(layer.mean.get_value(), layer.var.get_value())


# Every variant through the function, every front-end with the standard one: that all front-ends
# agree on all variants, bit for bit, is a test of its own.
FRONTS = [marked(name, row, function, id=f"function-{name}") for name, row in VARIANTS.items()]
FRONTS += [marked(None, VARIANTS["Standard"], front, id=front.__name__) for front in (linen, nnx)]
fronts = pytest.mark.parametrize(("row", "front"), FRONTS)
# A transformation that changes nothing does so in any type: another one than float32 is tried once.
once_half = pytest.mark.parametrize(
    ("row", "front", "dtype"),
    [pytest.param(*p.values, jnp.float32, id=p.id, marks=p.marks) for p in FRONTS]
    + [marked(None, VARIANTS["Standard"], function, jnp.bfloat16, id="bfloat16")],
)


def draw(shape=(24, FEATURES), dtype=jnp.float32, seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    x = (3 + jax.random.normal(keys[0], shape)).astype(dtype)
    affine = jbn.Affine(*(1 + 0.3 * jax.random.normal(keys[1], (2, shape[-1]))))
    stats = jbn.RunningStats(2.5 * jnp.ones(shape[-1]), 1.5 * jnp.ones(shape[-1]))
    return x, affine, stats, jax.random.normal(keys[2], shape)


@variants
def test_a_variant_is_a_plain_value(row):
    assert isinstance(row.variant, jbn.Variant)
    assert row.variant != row.another
    if not row.plain:
        return
    twin = eval(repr(row.variant), vars(jbn).copy())
    assert twin == row.variant
    assert hash(twin) == hash(row.variant)
    assert pickle.loads(pickle.dumps(row.variant)) == row.variant


@fronts
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_types_and_shapes_are_stable(row, front, dtype):
    x, affine, stats, _ = draw((6, 3, 2, FEATURES), dtype)
    y, new = jax.eval_shape(lambda *args: front(*args, row), x, affine, stats)
    chex.assert_trees_all_equal_shapes_and_dtypes((y, new), (x, stats))


@once_half
def test_jit_with_donated_state_changes_nothing(row, front, dtype):
    x, affine, stats, _ = draw(dtype=dtype)
    expected = front(x, affine, stats, row)
    jitted = jax.jit(lambda *args: front(*args, row), donate_argnums=2)
    chex.assert_trees_all_close(jitted(x, affine, stats), expected, rtol=1e-6)


@variants
@pytest.mark.parametrize("front", [linen, nnx])
def test_front_ends_agree_bit_for_bit(row, front):
    x, affine, stats, _ = draw()
    mask = jnp.arange(24) % 5 > 0
    for options in ({}, {"mask": mask}):
        chex.assert_trees_all_equal(
            front(x, affine, stats, row, **options), function(x, affine, stats, row, **options)
        )


@once_half
def test_vmap_is_a_loop(row, front, dtype):
    models = [draw(dtype=dtype, seed=seed)[:3] for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    mapped = jax.vmap(lambda *model: front(*model, row))(*stacked)
    looped = [front(*model, row) for model in models]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *looped)
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    chex.assert_trees_all_close(mapped, expected, rtol=tolerance, atol=tolerance)


@once_half
def test_scan_is_a_loop(row, front, dtype):
    batches = jnp.stack([draw(dtype=dtype, seed=seed)[0] for seed in range(3)])
    _, affine, stats, _ = draw()

    def step(stats, x):
        y, stats = front(x, affine, stats, row)
        return stats, y

    scanned, _ = jax.lax.scan(step, stats, batches)
    for x in batches:
        _, stats = front(x, affine, stats, row)
    chex.assert_trees_all_close(scanned, stats, rtol=1e-5)


@fronts
def test_forward_and_reverse_mode_are_transposes(row, front):
    """<J v, w> = <v, J' w>, whatever a variant's gradient is said to be."""
    x, affine, stats, ct = draw()
    tangents = jax.tree.map(lambda leaf: jnp.cos(7 * leaf), (x, affine))

    def y(x, affine):
        return front(x, affine, stats, row)[0]

    @jax.jit
    def both(x, affine, tangents, ct):
        _, out = jax.jvp(y, (x, affine), tangents)
        _, pullback = jax.vjp(y, x, affine)
        return out, pullback(ct)

    out, gradients = both(x, affine, tangents, ct)
    inner = sum(np.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (gradients, tangents))))
    np.testing.assert_allclose(np.vdot(out, ct), inner, rtol=1e-4)


@fronts
def test_checkpoint_and_second_order(row, front):
    x, affine, stats, ct = draw()

    def loss(x):
        y, new = front(x, affine, stats, row)
        return jnp.sum(jnp.tanh(y) * ct), new

    @jax.jit
    def everything(x, direction):
        gradient, again = (jax.grad(f, has_aux=True) for f in (loss, jax.checkpoint(loss)))
        found = gradient(x), again(x)
        if not row.true_gradient:  # then its derivative is not symmetric
            return found, (0.0, 0.0)
        _, forward = jax.jvp(lambda x: gradient(x)[0], (x,), (direction,))
        reverse = jax.grad(lambda x: jnp.vdot(gradient(x)[0], direction))(x)
        return found, (forward, reverse)

    (plain, again), (forward, reverse) = everything(x, jnp.sin(5 * x))
    chex.assert_trees_all_close(again, plain, atol=1e-5)
    chex.assert_trees_all_close(forward, reverse, rtol=1e-3, atol=1e-4)


@fronts
@pytest.mark.parametrize("kind", ["row", "element"])
def test_what_a_mask_excludes_is_never_read(row, front, kind):
    x, affine, stats, ct = draw()
    mask = jax.random.bernoulli(jax.random.key(5), 0.7, x.shape if kind == "element" else (24,))
    wide = mask if kind == "element" else jnp.broadcast_to(mask[:, None], x.shape)
    ct = jnp.where(wide, ct, 0)

    @jax.jit
    def everything(padding):
        def loss(x, affine):
            y, new = front(x, affine, stats, row, mask=mask)
            return jnp.sum(y * ct), (jnp.where(wide, y, 0), new)

        return jax.grad(loss, (0, 1), has_aux=True)(jnp.where(wide, x, padding), affine)

    reference = everything(0.0)
    chex.assert_tree_all_finite(reference)
    for padding in (1e6, jnp.nan, jnp.inf):
        chex.assert_trees_all_close(everything(padding), reference, rtol=1e-5, atol=1e-6)


@fronts
def test_the_running_statistics_are_those_of_the_batch(row, front):
    x, affine, stats, _ = draw()
    mask = jnp.arange(24) % 5 > 0
    for options in ({}, {"mask": mask}):
        _, new = front(x, affine, stats, row, **options)
        expected = jbn.update_running(stats, jbn.batch_moments(x, **options), momentum=0.5)
        if row.variant.population() == jbn.Standard():
            chex.assert_trees_all_close(new, expected, rtol=1e-6)
        else:
            assert not np.allclose(new.var, expected.var)


@fronts
def test_inference_by_the_batch_does_what_the_population_variant_does(row, front):
    x, affine, stats, _ = draw()
    population = row._replace(variant=row.variant.population())
    for mask in (None, jnp.arange(24) % 12 < 8):
        _, new = front(x, affine, stats, row, mask=mask)
        y, same = front(x, affine, stats, population, mask=mask)
        chex.assert_trees_all_close(new, same, rtol=1e-5)
        of_the_batch = jax.tree.map(lambda new, old: 2 * new - old, new, stats)
        chex.assert_trees_all_close(y, jbn.normalize(x, *of_the_batch, *affine), atol=2e-5)
    assert row.variant.population().population() == row.variant.population()


@fronts
def test_a_bad_batch_does_not_poison_the_state(row, front):
    x, affine, stats, _ = draw()
    _, clean = front(x, affine, stats, row)
    for value in (jnp.nan, jnp.inf, -jnp.inf):
        y, new = front(x.at[7, 2].set(value), affine, stats, row)
        assert not np.isfinite(y[:, 2]).all()
        chex.assert_tree_all_finite(new)
        untouched = [jax.tree.map(lambda leaf: jnp.delete(leaf, 2), s) for s in (new, clean)]
        chex.assert_trees_all_equal(*untouched)
    _, same = front(x, affine, stats, row, mask=jnp.zeros(24, bool))
    chex.assert_trees_all_equal(same, stats)


@fronts
def test_parts_on_devices_are_the_whole(row, front):
    x, affine, stats, ct = draw()
    mask = jnp.array([6, 2, 0, 5])[:, None] > jnp.arange(6)[None]
    mask, rows = mask.reshape(-1), P("data")
    ct = jnp.where(mask[:, None], ct, 0)

    def both(x, mask, ct, affine, axis_name=None):
        def loss(x, affine):
            y, new = front(x, affine, stats, row, mask=mask, axis_name=axis_name)
            return jnp.sum(y * ct), (jnp.where(mask[:, None], y, 0), new)

        return jax.grad(loss, (0, 1), has_aux=True)(x, affine)

    sharded = jax.shard_map(
        lambda *args: both(*args, axis_name="data"),
        mesh=Mesh(np.array(jax.devices()[:4]), ("data",)),
        in_specs=(rows, rows, rows, P()),
        out_specs=((rows, P()), (rows, P())),
    )
    got, expected = (jax.jit(f)(x, mask, ct, affine) for f in (sharded, both))
    if not row.whole:  # then only the statistics are the whole batch's
        got, expected = got[1][1], expected[1][1]
    chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=2e-6)


# tests/jbn/test_export.py does it for all variants and any size. On one device 8190 rows are summed
# by blocks on a CPU, and otherwise elsewhere.
@pytest.mark.parametrize("row", [marked(n, VARIANTS[n], id=n) for n in ("Standard", "Ghost")])
def test_sums_by_blocks_lower_for_every_platform(row):
    def step(x, affine, stats):
        def loss(x, affine):
            y, new = function(x, affine, stats, row)
            return jnp.sum(y * y), new

        return jax.grad(loss, (0, 1), has_aux=True)(x, affine)

    x, affine, stats, _ = draw((8190, FEATURES))
    with jax.set_mesh(jax.make_mesh((1,), ("one",), axis_types=(AxisType.Auto,))):
        exported = export.export(jax.jit(step), platforms=["cpu", "cuda", "rocm", "tpu"])(
            x, affine, stats
        )
        found = exported.call(x, affine, stats)
    chex.assert_trees_all_close(found, step(x, affine, stats), rtol=1e-5, atol=1e-4)
