"""NNX variables that are references of JAX, or hijax ones: what moves the statistics, how often.

The table of docs/flax.md, for `flax.nnx.BatchNorm` and `jbn.nnx.BatchNorm`.
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jbn.nnx

X = 1 + jax.random.normal(jax.random.key(0), (16, 8))


def loss(x, model):
    return jnp.sum(model(x) ** 3)


def scanned(model):
    return jax.lax.scan(lambda carry, _: (carry, model(X)), 0, None, length=3)


# Each with the number of batches it shows the layer.
CALLS = {
    "model(x)": (lambda m: m(X), 1),
    "jax.jit": (lambda m: jax.jit(lambda m: m(X))(m), 1),
    "nnx.jit": (lambda m: nnx.jit(lambda m: m(X))(m), 1),
    "jax.grad": (lambda m: jax.grad(loss)(X, m), 1),
    "jax.grad in jax.jit": (lambda m: jax.jit(lambda m: jax.grad(loss)(X, m))(m), 1),
    "jax.checkpoint": (lambda m: jax.jit(lambda m: jax.checkpoint(lambda x: m(x))(X))(m), 1),
    "jax.grad of jax.checkpoint": (
        lambda m: jax.jit(lambda m: jax.grad(jax.checkpoint(lambda x: loss(x, m)))(X))(m),
        1,
    ),
    "jax.lax.scan": (lambda m: jax.jit(scanned)(m), 3),
    "nnx.grad": (lambda m: nnx.grad(lambda m: loss(X, m))(m), 1),
    "nnx.grad of nnx.remat": (
        lambda m: nnx.grad(lambda m: nnx.remat(lambda m: loss(X, m))(m))(m),
        1,
    ),
    "jax.vmap over x": (lambda m: jax.vmap(m)(X.reshape(2, 8, 8)), 1),
}


def updates(layer, call) -> int | str:
    """How often `call` moved the statistics of `layer`; the class of the error if it raised one."""
    try:
        call(layer)
    except Exception as error:
        return type(error).__name__
    # After n batches alike the mean is (1 - 0.99^n) of theirs.
    share = float(jnp.mean(layer.mean[...] / jnp.mean(X, axis=0)))
    count = np.log1p(-share) / np.log(0.99)
    assert abs(count - round(count)) < 1e-3
    return round(count)


def made(kind, **metadata):
    with nnx.var_defaults(**metadata) if metadata else contextlib.nullcontext():
        return kind(8, rngs=nnx.Rngs(0))


IN_REFERENCES = {
    **{name: count for name, (_, count) in CALLS.items() if not name.startswith("nnx.grad")},
    "nnx.grad": "error",  # it would differentiate the references
    "nnx.grad of nnx.remat": "error",
    "jax.vmap over x": "error",  # one reference cannot take a batch of values
}


@pytest.mark.parametrize("name", CALLS)
def test_references_are_moved_once(name):
    call, _ = CALLS[name]
    found = updates(made(jbn.nnx.BatchNorm, ref=True), call)
    expected = IN_REFERENCES[name]
    assert isinstance(found, str) if expected == "error" else found == expected
    theirs = updates(made(nnx.BatchNorm, ref=True), call)
    if name == "jax.grad of jax.checkpoint":
        assert theirs != 1  # twice, or an error
    else:
        assert isinstance(theirs, str) or theirs == found


@pytest.mark.parametrize(
    "make",
    [
        lambda: nnx.clone(made(jbn.nnx.BatchNorm, ref=True)),
        lambda: nnx.with_vars(made(jbn.nnx.BatchNorm), ref=True),
    ],
)
def test_references_that_flax_makes_later_are_moved_twice_by_a_checkpoint(make):
    assert updates(make(), CALLS["jax.grad of jax.checkpoint"][0]) == 2
    assert updates(make(), CALLS["jax.grad in jax.jit"][0]) == 1


def test_statistics_in_references_may_be_frozen_split_and_merged():
    model = made(jbn.nnx.BatchNorm, ref=True)
    assert isinstance(model.mean.get_raw_value(), jax.Ref)
    assert updates(model, lambda m: jax.jit(lambda m: m(X, use_running_average=True))(m)) == 0
    graphdef, state = nnx.split(model)
    call, _ = CALLS["jax.grad of jax.checkpoint"]
    assert updates(nnx.merge(graphdef, state), call) == 1


SCRIPT = """
import json
from flax import nnx
import jbn.nnx
from test_nnx_references import CALLS, made, updates
print(json.dumps({
    name: [updates(made(kind), call) for kind in (nnx.BatchNorm, jbn.nnx.BatchNorm)]
    for name, (call, _) in CALLS.items()
}))
"""


def test_hijax_variables_move_where_those_of_flaxs_layer_do_and_never_too_often():
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"FLAX_HIJAX_VARIABLE": "1", "PYTHONPATH": path}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    for name, (theirs, found) in json.loads(run.stdout.splitlines()[-1]).items():
        batches = CALLS[name][1]
        assert found == batches or isinstance(found, str), name
        assert found == theirs or isinstance(theirs, str), name
    assert json.loads(run.stdout.splitlines()[-1])["model(x)"] == [1, 1]
