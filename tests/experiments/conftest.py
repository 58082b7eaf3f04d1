"""A study small enough to recompute by hand, and data to train it on."""

import dataclasses
from typing import Any

import pytest

from experiments.study import data
from experiments.study.config import Study
from jbn import Standard

SMALL = Study(
    name="small",
    claim="none",
    data="digits",
    norms={"no norm": None, "batch norm": Standard()},
    widths=(8, 6),
    activation="sigmoid",
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
    """A function that returns the small study with the fields it is given."""

    def study(**fields: Any) -> Study:
        return dataclasses.replace(SMALL, **fields)

    return study


@pytest.fixture(scope="session")
def digits() -> data.Data:
    return data.load("digits")
