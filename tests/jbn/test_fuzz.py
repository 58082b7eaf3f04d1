"""Random programs on random batches, outliers at any set of rows, against extended precision."""

import itertools

import fuzz
import pytest
from fuzz_data import DATA
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

PROGRAMS = list(itertools.islice(fuzz.programs(seed=0), 24))
FIXED = settings(
    derandomize=True,
    max_examples=15,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # what fails is small enough as it is
    suppress_health_check=list(HealthCheck),
)
LONG = settings(FIXED, derandomize=False, max_examples=2000, phases=[Phase.generate, Phase.shrink])


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_a_program_is_within_the_bound_on_any_batch(program):
    @FIXED
    @given(DATA)
    def run(datum):
        assert not fuzz.check(program, datum), program

    run()


@pytest.mark.long
@LONG
@given(st.integers(0, 2**32), st.lists(DATA, min_size=1, max_size=10))
def test_any_program_is_within_the_bound_on_any_batch(seed, data):
    program = next(fuzz.programs(seed))
    for datum in data:
        assert not fuzz.check(program, datum), program


def test_the_programs_hold_every_choice():
    for name, choices in fuzz.CHOICES.items():
        assert {getattr(program, name) for program in PROGRAMS} == set(choices)
