"""Records and variants as values: equality, pickling, and what JAX puts into their fields."""

import pickle
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jbn

VALUES = {
    "Affine": jbn.init(3)[0],
    "RunningStats": jbn.init(3)[1],
    "Drift": jbn.Drift(1.0, 2.0, 3.0),
    "Renorm of arrays": jbn.Renorm(jnp.float32(2), jnp.float32(1)),
    "Noisy": jbn.Noisy(jax.random.key(3)),
    "Noisy of an old-style key": jbn.Noisy(jax.random.PRNGKey(3)),
    "Ghost of Renorm": jbn.Ghost(4, jbn.Renorm(jnp.float32(2))),
}

values = pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)


@values
def test_a_pickled_value_equals_the_one_that_was_pickled(value):
    again = pickle.loads(pickle.dumps(value))
    assert again == value
    assert (again != value) is False
    assert type(again) is type(value)


@values
def test_values_differ_where_a_leaf_does(value):
    def more(leaf):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.fold_in(leaf, 1)
        return leaf + 1

    leaves, structure = jax.tree.flatten(value)
    for place in range(len(leaves)):
        others = [more(leaf) if i == place else leaf for i, leaf in enumerate(leaves)]
        other = jax.tree.unflatten(structure, others)
        assert other != value
        assert (other == value) is False


def test_records_of_different_classes_shapes_or_types_differ():
    affine, stats = jbn.init(3)
    assert affine != stats
    assert affine != tuple(affine)
    assert affine != jbn.init(4)[0]
    assert affine != jbn.init(3, jnp.bfloat16)[0]
    assert affine != jbn.Affine(affine.bias, affine.scale)
    assert jbn.Affine(np.ones(2), np.ones(2)) == jbn.Affine(np.ones(2), np.ones(2))
    assert jbn.Affine("a", None) == jbn.Affine("a", None)  # whatever JAX may put there


def test_what_holds_arrays_has_no_hash():
    for value in (jbn.init(3)[0], VALUES["Renorm of arrays"]):
        with pytest.raises(TypeError, match="unhashable"):
            hash(value)
    assert hash(jbn.Renorm(2.0)) == hash(jbn.Renorm(2.0))


def test_a_traced_comparison_is_an_error_of_jax():
    with pytest.raises(jax.errors.TracerBoolConversionError):
        jax.jit(lambda affine: affine == affine._replace(bias=affine.scale))(jbn.init(3)[0])


@pytest.mark.parametrize("value", [jbn.Renorm(), VALUES["Noisy"], VALUES["Ghost of Renorm"]])
def test_fields_may_hold_what_jax_puts_there(value):
    for placeholder in (None, "name", object(), jax.sharding.PartitionSpec()):
        tree = jax.tree.map(lambda leaf, placeholder=placeholder: placeholder, value)
        assert type(tree) is type(value)
    chex.assert_trees_all_equal(jax.tree.map(lambda leaf: leaf, value), value)
    assert jax.tree.map(lambda leaf: leaf, value) == value


def test_paths_name_the_fields():
    paths = [
        jax.tree_util.keystr(path)
        for path, _ in jax.tree_util.tree_leaves_with_path(VALUES["Ghost of Renorm"])
    ]
    assert paths == [".base.r_max", ".base.d_max"]


@dataclass(frozen=True)
class Own:
    """A variant of a class that JAX does not know."""

    factor: float = 2.0

    def __call__(self, x, affine, stats, **options):
        y, moments = jbn.Standard()(x, affine, stats, **options)
        return self.factor * y, moments


@pytest.mark.parametrize("wrap", [lambda own: own, lambda own: jbn.Ghost(8, own)])
def test_a_variant_of_ones_own_works_inside_others(wrap):
    x = jax.random.normal(jax.random.key(0), (8, 3))
    expected, stats = jbn.batch_norm(x, *jbn.init(3))
    y, new = jbn.batch_norm(x, *jbn.init(3), variant=wrap(Own()))
    chex.assert_trees_all_close((y, new), (2 * expected, stats), rtol=1e-6)
    noisy = jbn.Noisy(jax.random.key(0), mean=0.0, scale=1.0, spread=0.0, base=wrap(Own()))
    chex.assert_trees_all_close(jbn.batch_norm(x, *jbn.init(3), variant=noisy)[0], y, rtol=1e-6)
    assert jax.tree.map(lambda leaf: leaf, wrap(Own())) == wrap(Own())
    assert jax.tree.map(lambda leaf: leaf, jbn.Ghost(8, Own())) != jbn.Ghost(8, Own(3.0))


def test_a_variant_of_ones_own_compiles_once():
    step = chex.assert_max_traces(
        lambda x, variant: jbn.batch_norm(x, *jbn.init(3), variant=variant)[0], n=1
    )
    jitted = jax.jit(step)
    for _ in range(3):
        jitted(jnp.ones((8, 3)), jbn.Ghost(4, Own()))
