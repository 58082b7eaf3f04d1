"""Conditions of a measurement: whatever changes a number is said beside it."""

import pytest

from experiments.system.environment import conditions
from jbn._numerics import columns


@pytest.mark.parametrize(("built", "by"), [(True, "native, by make fast"), (False, "by XLA")])
def test_who_sums_is_said(built, by, monkeypatch):
    monkeypatch.setattr(columns, "BUILT", built)
    lines = conditions("python -m experiments bench op")
    assert f"jbn's sums over a batch: {by}" in lines
    assert lines[0] == "Command: `python -m experiments bench op`"
