"""Measuring of claims one by one: each result is kept as soon as it is there."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from experiments.papers.claim import Claim, Outcome, Setting, StandIn
from experiments.papers.results import ITSELF, Result, Trial
from experiments.papers.tools.in_weights import NoPlace
from experiments.system.environment import conditions
from experiments.system.progress import announce


@dataclass(frozen=True)
class Measuring:
    """Claims measured into `found`, in place of what it had of them."""

    found: dict[str, Result]
    """By the claim's name."""
    command: str
    resume: bool
    """Whether what `found` has, of the same seeds and size, is left as it is."""
    keep: Callable[[Result], None]
    """Called with each result that is new, or has something new."""

    def claim(self, claim: Claim, setting: Setting) -> Result:
        """Measures a claim with its first seeds."""
        before = self.found.get(claim.name)
        if self.resume and before and before.setting == setting.as_json():
            return before
        announce(f"{claim.name}, seeds from {setting.first_seed}")
        begun = time.perf_counter()
        outcome = claim.measure(setting)
        self.found[claim.name] = result = Result(
            claim,
            outcome,
            claim.setup(setting),
            time.perf_counter() - begun,
            conditions(self.command),
            setting.as_json(),
        )
        self.keep(result)
        return result

    def again(self, claim: Claim, setting: Setting) -> None:
        """Measures a claim with other seeds, for its verdict."""
        result = self.found[claim.name]
        if not (self.resume and setting.first_seed in result.again):
            announce(f"{claim.name}, seeds from {setting.first_seed}")
            result.again[setting.first_seed] = claim.measure(setting).verdict
            self.keep(result)

    def stand_ins(self, claim: Claim, setting: Setting, *, controls_alone: bool = False) -> None:
        """Measures a claim with its stand-ins, or its negative controls, in batch norm's place.

        In the quick form always, with what the claim is about beside them.
        """
        result, quick = self.found[claim.name], replace(setting, quick=True)
        itself = (lambda _: result.outcome) if setting.quick else claim.measure
        for stand_in in (StandIn(ITSELF, itself), *claim.stand_ins):
            before = result.stand_ins.get(stand_in.name)
            if self.resume and before and before.setting == quick.as_json():
                continue
            if stand_in.must_fail or stand_in.name == ITSELF or not controls_alone:
                announce(f"{claim.name}, in the quick form: {stand_in.name}")
                result.stand_ins[stand_in.name] = try_out(stand_in, quick)
                self.keep(result)


def try_out(stand_in: StandIn, setting: Setting) -> Trial:
    """Measures a claim with something in batch norm's place, if it can stand there.

    Raises:
        NoPlace: when a negative control cannot.
    """
    begun, no_place = time.process_time(), ""
    try:
        outcome = stand_in.measure(setting)
    except NoPlace as error:
        if stand_in.must_fail:
            raise
        outcome, no_place = Outcome([], []), str(error)
    seconds = time.process_time() - begun
    return Trial(outcome, stand_in.must_fail, setting.as_json(), seconds, no_place)
