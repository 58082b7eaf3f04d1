"""A study small enough to recompute by hand, and data to train it on."""

import dataclasses
from typing import Any

import pytest

from experiments.study import MLP, Digits, Standard, Study
from experiments.study.examples import Examples

SMALL = Study(
    name="small",
    claim="none",
    data=Digits(),
    norms={"no norm": None, "batch norm": Standard()},
    network=MLP((8, 6), "sigmoid"),
    init_std=0.3,
    optimizer="sgd",
    learning_rates=(0.1, 1.0, 3.0),
    seeds=(0, 7),
    batch_size=16,
    steps=40,
    evaluate_every=20,
)


@pytest.fixture(scope="session")
def small():
    """A function that returns the small study with the fields it is given, or the MLP's."""

    def study(**fields: Any) -> Study:
        mlp = {name: fields.pop(name) for name in ("widths", "activation") if name in fields}
        if mlp:
            fields["network"] = dataclasses.replace(SMALL.network, **mlp)
        return dataclasses.replace(SMALL, **fields)

    return study


@pytest.fixture(scope="session")
def digits() -> Examples:
    return Digits().load()
