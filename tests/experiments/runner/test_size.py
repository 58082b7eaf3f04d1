"""A study that cannot fit into memory is refused by one line, before anything is compiled."""

import pytest

from experiments.runner import results, size
from experiments.study import MLP, Digits, Standard
from experiments.study.trace import trace
from experiments.study.values import ConfigError


@pytest.mark.parametrize(
    "fields", [{}, {"steps": 42, "evaluate_every": 3}, {"epsilon": (1.0, 2.0)}]
)
def test_the_size_of_the_dataset_is_known_before_it_is_made(small, fields):
    traced = trace(small(data=Digits(validation=0.1), **fields))
    dataset = results.blank(traced)
    assert size.measured_bytes(traced) == sum(v.nbytes for v in dataset.data_vars.values())


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"steps": 10**9},
            r"^steps=1000000000 with evaluate_every=20: 12 runs' measurements need ",
        ),
        (
            {"widths": (2**31 - 1,) * 3},
            r"^network with norms\['no norm'\]: 6 runs need .* GiB, and",
        ),
        ({"batch_size": 2**31 - 1}, r"^batch_size=2147483647: a batch needs 512 GiB, and this mac"),
    ],
)
def test_what_does_not_fit_is_named(small, fields, says):
    traced = trace(small(**fields))
    with pytest.raises(ConfigError, match=says):
        size.check_size(traced)


def test_the_optimizers_memory_counts(small):
    needed = {}
    for optimizer in ("sgd", "adam"):
        traced = trace(
            small(optimizer=optimizer, norms={"bn": Standard()}, network=MLP((999,), "relu"))
        )
        needed[optimizer] = size._state_bytes(traced.study, traced.models["bn"])
    weights = 4 * (64 * 999 + 2 * 999 + 999 * 10 + 10)
    statistics = 4 * 2 * 999
    assert 0 < needed["sgd"] - weights - statistics < 100
    assert 0 < needed["adam"] - needed["sgd"] - 2 * weights < 100
