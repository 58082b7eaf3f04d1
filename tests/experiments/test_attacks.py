"""A sample of the attacks, from a seed that is printed; `attacks.py` makes hundreds."""

import random

import pytest
from attacks import KINDS, Attacks

SAMPLE = {"kills": 2, "tears": 1, "flips": 3, "disks": 2, "races": 1, "checkpoints": 4}


@pytest.fixture(scope="module")
def attacks(tmp_path_factory):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    return Attacks(tmp_path_factory.mktemp("attacks"), seed)


@pytest.mark.parametrize("kind", SAMPLE)
def test_nothing_changes_silently(attacks, kind):
    for _ in range(SAMPLE[kind]):
        tried = KINDS[kind](attacks)
        assert tried.is_right, tried
