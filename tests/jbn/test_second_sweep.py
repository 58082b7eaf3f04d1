"""The second sweep is one loop in any program, outside every derivative and every collective."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import P
from jax.extend.core import ClosedJaxpr, Jaxpr

import jbn
from jbn._numerics import measure

LOOPS = 1  # that sweep the batch again, in values and gradients of one batch norm
SHAPE = (64, 4)
VARIANTS = [jbn.Standard(), jbn.Renorm(), jbn.Uncentered(), jbn.Running(), jbn.Detached()]
COLLECTIVES = ("psum", "pmax", "pmin", "all_gather", "all_to_all", "ppermute", "reduce_scatter")


def primitives(jaxpr: Jaxpr, within: tuple[str, ...] = ()) -> list[tuple]:
    """Each equation, of inner programs too, with the names of those that it lies within."""
    found = []
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        found.append((name, within, equation))
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda p: isinstance(p, ClosedJaxpr | Jaxpr)
        ):
            if isinstance(inner, ClosedJaxpr | Jaxpr):
                body = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
                found += primitives(body, (*within, name))
    return found


def census(function, *arguments) -> Counter:
    """How many loops, branches, and sums over a whole batch outside them a program has."""
    found = Counter()
    size = np.prod(SHAPE)
    for name, within, equation in primitives(jax.make_jaxpr(function)(*arguments).jaxpr):
        if name == "while" or (name == "cond" and equation.params["branches_platforms"] is None):
            found[name] += 1
        elif (
            name == "reduce_sum" and "while" not in within and equation.invars[0].aval.size >= size
        ):
            found["sums"] += 1
    return found


def step(variant, **axis):
    def values_and_gradients(x, affine, stats, ct):
        def value(x, affine):
            return jbn.batch_norm(x, affine, stats, variant=variant, **axis)

        y, pullback, new = jax.vjp(value, x, affine, has_aux=True)
        return y, new, pullback(ct)

    return values_and_gradients


@pytest.fixture
def arguments():
    return jnp.ones(SHAPE), *jbn.init(SHAPE[-1]), jnp.ones(SHAPE)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_there_is_one_loop_and_vmap_neither_adds_one_nor_sweeps_always(arguments, variant):
    plain = census(step(variant), *arguments)
    assert plain["while"] == LOOPS
    assert plain["cond"] == 0
    models = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), arguments)
    assert census(jax.vmap(step(variant)), *models) == plain
    axes = (0, None, None, None)  # of which some arguments are not mapped
    mixed = (models[0], *arguments[1:])
    assert census(jax.vmap(step(variant), in_axes=axes), *mixed) == plain


def test_groups_share_one_loop(arguments):
    assert census(step(jbn.Ghost(16)), *arguments)["while"] == LOOPS
    assert census(step(jbn.Ghost(16, jbn.Renorm())), *arguments)["while"] == LOOPS


def test_the_compiled_program_has_one_loop(arguments):
    models = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), arguments)
    text = jax.jit(jax.vmap(step(jbn.Standard()))).lower(*models).compile().as_text()
    assert text.count(" while(") == LOOPS
    assert text.count(" conditional(") == 0


@pytest.mark.parametrize("groups", [None, [[0, 1], [2, 3]]])
def test_no_collective_lies_in_the_loop(arguments, groups):
    axis = {"axis_name": "data", "axis_index_groups": groups}
    rows = P("data")
    sharded = jax.shard_map(
        step(jbn.Standard(), **axis),
        mesh=jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)),
        in_specs=(rows, P(), P(), rows),
        out_specs=rows,
    )
    found = primitives(jax.make_jaxpr(sharded)(*arguments).jaxpr)
    within = {name: set() for name, _, _ in found}
    for name, places, _ in found:
        within[name] |= set(places)
    assert "while" in within
    collectives = [name for name in within if name.startswith(COLLECTIVES)]
    assert collectives
    assert not any("while" in within[name] for name in collectives)


def test_a_sweep_is_traced_once_for_the_loop_and_before_it(monkeypatch):
    traced, after_sweep = [], measure._after_sweep
    monkeypatch.setattr(measure, "_after_sweep", lambda *a: traced.append(1) or after_sweep(*a))
    x = jnp.ones((3, 2))
    jax.make_jaxpr(lambda x: measure.measure(measure.Values.of(x, x.dtype), None, x[0], 0.0))(x)
    assert len(traced) == 1
