"""Negative controls, measured: with none of them does its claim come out reproduced.

Every run of the tests takes those that are cheap; `pytest -m long` takes the others,
with MNIST from JBN_DATA_DIR or downloaded.
"""

import pytest

from experiments.papers.catalogue import CLAIMS
from experiments.papers.claim import Setting
from experiments.papers.controls import QUICK
from experiments.papers.measuring import try_out
from experiments.study.data import load


def of_claims(chosen):
    return pytest.mark.parametrize("claim", chosen, ids=lambda claim: claim.name)


def reproduced(claim, setting):
    trials = {s.name: try_out(s, setting) for s in claim.stand_ins if s.must_fail}
    return [name for name, trial in trials.items() if trial.alarms]


@of_claims([claim for claim in CLAIMS if claim.name in QUICK])
def test_no_cheap_control_is_reproduced(claim):
    assert reproduced(claim, Setting(quick=True)) == []


@pytest.fixture(scope="module")
def mnist():
    return load("mnist")


@pytest.mark.long
@of_claims([claim for claim in CLAIMS if claim.name not in QUICK])
def test_no_other_control_is_reproduced(claim, request):
    images = request.getfixturevalue("mnist") if claim.needs_mnist else None
    assert reproduced(claim, Setting(quick=True, images=images)) == []


def test_cheap_controls_are_of_claims_that_need_no_images():
    assert {claim.name for claim in CLAIMS if not claim.needs_mnist} >= {*QUICK}
