"""Negative controls: which of them every run of the tests measures."""

from collections.abc import Sequence

from experiments.papers.results import ITSELF, Result

SECONDS = 5.0


def is_quick(result: Result) -> bool:
    """Whether a claim's controls, as measured, are cheap enough for every run of the tests.

    They are if they need no MNIST and took less than 5 seconds, with the claim itself beside them:
    it may have paid for runs that they share.
    """
    taken = [
        trial.seconds
        for name, trial in result.stand_ins.items()
        if trial.must_fail or name == ITSELF
    ]
    known = [seconds for seconds in taken if seconds is not None]
    return not result.claim.needs_mnist and known == taken and 0 < sum(known) < SECONDS


def quick_names(results: Sequence[Result]) -> list[str]:
    """The claims whose controls are quick, by name."""
    return [result.claim.name for result in results if is_quick(result)]
