"""Zhong et al. 2023: batch norm among federated clients with unlike data, and a cure."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import (
    Check,
    Claim,
    Line,
    Outcome,
    Plot,
    Setting,
    StandIn,
    at_least,
)
from experiments.papers.tools.mlp import MLP, cross_entropy, in_training
from experiments.papers.tools.spread import combinations, spread_each
from experiments.papers.tools.stand_ins import stand_ins
from experiments.study.data import load
from experiments.study.norms import is_variant
from jbn import Standard

_WIDTHS = (100, 100)
_CLIENTS = 10
_CLASSES = 10
_LOCAL_STEPS = 20
_BATCH_SIZE = 32
_MOMENTUM = 0.9
_RATES = np.array([0.03, 0.1, 0.3], np.float32)
_LAST = 10


class Clients(NamedTuple):
    """The training set shared out, and the test set."""

    x: np.ndarray
    """`(clients, examples, pixels)`."""
    labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def share(iid: bool) -> Clients:
    """Digits for ten clients: of two classes each, every class at two of them, or at random."""
    data = load("digits")
    order = np.argsort(data.train_labels, kind="stable")
    if iid:
        order = np.random.default_rng(0).permutation(order)
    # Half a class in a shard; two shards of neighbouring classes for each client.
    size = len(order) // (2 * _CLIENTS)
    shards = order[: 2 * _CLIENTS * size].reshape(2 * _CLIENTS, size)
    chosen = np.concatenate(
        [np.roll(shards, -1, axis=0)[::2], np.roll(shards, -1, axis=0)[1::2]], 1
    )
    x = data.train_images.astype(np.float32) / np.float32(data.brightest)
    test = data.test_images.astype(np.float32) / np.float32(data.brightest)
    return Clients(x[chosen], data.train_labels[chosen], test, data.test_labels)


def federate(
    norm: Any, freeze: bool, rounds: int, clients: Clients, seed: jax.Array, rate: jax.Array
) -> jax.Array:
    """Accuracy of the averaged network after each round of FedAvg.

    Running statistics are averaged too, and used in the test. With `freeze` the second half of
    the rounds normalises by them in training as well, and leaves them as they are.
    """
    model = MLP(_WIDTHS, jax.nn.relu, jax.nn.initializers.he_normal(), norm, momentum=_MOMENTUM)
    weights_key, batches_key = jax.random.split(jax.random.key(seed))
    x = jnp.asarray(clients.test)
    first = jnp.asarray(clients.x[:, :_BATCH_SIZE]).reshape(-1, x.shape[1])
    variables: Any = model.init(weights_key, first, use_running_average=False)
    start = variables["params"], variables.get("batch_stats", {})

    def local(frozen: bool, state: Any, client: Any, key: jax.Array) -> Any:
        images, labels = client

        def step(state: tuple[Any, Any], key: jax.Array) -> tuple[Any, None]:
            params, stats = state
            rows = jax.random.randint(key, (_BATCH_SIZE,), 0, images.shape[0])

            def loss(params: Any) -> tuple[jax.Array, Any]:
                if frozen:
                    seen = {"params": params, "batch_stats": stats}
                    found: Any = model.apply(seen, images[rows], use_running_average=True)
                    return cross_entropy(found[0], labels[rows]), stats
                scores, _, after = in_training(model, params, stats, images[rows])
                return cross_entropy(scores, labels[rows]), after

            gradient, stats = jax.grad(loss, has_aux=True)(params)
            return (jax.tree.map(lambda p, g: p - rate * g, params, gradient), stats), None

        return jax.lax.scan(step, state, jax.random.split(key, _LOCAL_STEPS))[0]

    def one_round(frozen: bool, state: Any, number: jax.Array) -> tuple[Any, jax.Array]:
        keys = jax.random.split(jax.random.fold_in(batches_key, number), _CLIENTS)
        data = jnp.asarray(clients.x), jnp.asarray(clients.labels)
        each = jax.vmap(partial(local, frozen, state))(data, keys)
        params, stats = state = jax.tree.map(lambda a: jnp.mean(a, axis=0), each)
        seen = {"params": params, "batch_stats": stats}
        found: Any = model.apply(seen, x, use_running_average=True)
        return state, jnp.mean(jnp.argmax(found[0], axis=1) == clients.test_labels)

    numbers = jnp.arange(rounds)
    if not freeze:
        return jax.lax.scan(partial(one_round, False), start, numbers)[1]
    half = rounds // 2
    state, first = jax.lax.scan(partial(one_round, False), start, numbers[:half])
    _, second = jax.lax.scan(partial(one_round, True), state, numbers[half:])
    return jnp.concatenate([first, second])


def _rounds(setting: Setting) -> int:
    return setting.pick(full=100, quick=40)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=4, quick=4)


def _rates(setting: Setting) -> np.ndarray:
    return _RATES[1:2] if setting.quick else _RATES


def measure_with(setting: Setting, norm: Any, iid: bool = False) -> Outcome:
    """Accuracy in the last rounds of no norm, the norm, and the norm frozen half-way."""
    seeds, rates, rounds = _seeds(setting), _rates(setting), _rounds(setting)
    arms = {"no norm": (None, False), "batch norm": (norm, False)}
    if is_variant(norm):
        arms["frozen half-way"] = norm, True
    runs = {name: partial(federate, *arm, rounds) for name, arm in arms.items()}
    rate, seed = combinations(rates, seeds)
    found = spread_each(runs, seed, rate, given=[share(iid)])
    # Each at its own best rate in the mean over seeds.
    curves = {}
    for name, curve in found.items():
        curve = curve.reshape(len(rates), len(seeds), rounds)
        curves[name] = curve[np.argmax(curve[..., -_LAST:].mean(axis=(1, 2)))]
    ends = {name: curve[:, -_LAST:].mean(axis=1) for name, curve in curves.items()}
    frozen = ends.get("frozen half-way", ends["batch norm"])
    mean = f"mean accuracy over the last {_LAST} of {rounds} rounds"
    checks = [
        Check(
            f"no norm less batch norm: {mean}",
            ends["no norm"] - ends["batch norm"],
            at_least(0.01),
            "regression",
        ),
        Check(
            f"frozen half-way less batch norm: {mean}",
            frozen - ends["batch norm"],
            at_least(0.01),
            "published",
        ),
    ]
    numbers = np.arange(1, rounds + 1)
    lines = [Line(name, numbers, curve) for name, curve in curves.items()]
    plot = Plot("The averaged network", "round", "test accuracy", lines)
    told = ", ".join(f"{name} {end.mean():.3f}" for name, end in ends.items())
    return Outcome(checks, [plot], [f"{mean.capitalize()}: {told}."])


def _describe(setting: Setting) -> str:
    rates = ", ".join(f"{rate:g}" for rate in _rates(setting).tolist())
    return (
        f"Digits, 64-{'-'.join(map(str, _WIDTHS))}-10 ReLU; {_CLIENTS} clients of 2 classes "
        f"each, {_rounds(setting)} rounds of {_LOCAL_STEPS} local steps of SGD, batch size "
        f"{_BATCH_SIZE}, weights and running statistics (momentum {_MOMENTUM:g}) averaged after "
        f"each; rates {rates}, each network at its best; {len(_seeds(setting))} seeds."
    )


FEDERATED = Claim(
    name="zhong-federated",
    sentence="Batch norm loses accuracy when clients with unlike data average their networks; "
    "with its statistics frozen half-way it does not.",
    citation="Zhong, Chen & Chao 2023, Making Batch Normalization Great in Federated Deep "
    "Learning, arXiv:2303.06530, FixBN",
    setup=_describe,
    formula="accuracy of the averaged network, with running statistics",
    measure=lambda setting: measure_with(setting, Standard()),
    group="further",
    registered="2026-11-28",
    stand_ins=[
        *stand_ins(measure_with, must_fail=("layer norm",)),
        StandIn(
            "clients with like data",
            lambda setting: measure_with(setting, Standard(), iid=True),
            must_fail=True,
        ),
    ],
)
