"""Results of claims: what was measured, seed by seed, and the JSON file that holds it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.papers.claim import Check, Claim, Outcome, Range, Verdict
from experiments.system.environment import conditions

ITSELF = "itself"
"""What the claim is about, beside what stands in its place: in the quick form, as they are."""


class Trial(NamedTuple):
    """What came of a claim with something else in batch norm's place."""

    outcome: Outcome
    must_fail: bool
    setting: Mapping[str, Any]
    seconds: float | None = None
    """Of processors, compilation included; less where it shared runs. None in older files."""
    no_place: str = ""
    """Why it cannot stand there, in which case nothing was measured."""

    @property
    def alarms(self) -> bool:
        """Whether it is a negative control with which the claim came out reproduced."""
        return self.must_fail and self.outcome.verdict == "reproduced"


@dataclass(frozen=True)
class Result:
    """A claim and what came of it."""

    claim: Claim
    outcome: Outcome
    setup: str
    seconds: float
    measured_with: Sequence[str]
    """Command, machine and versions, a line each."""
    setting: Mapping[str, Any]
    """What of `Setting` decides what is measured."""
    again: dict[int, Verdict] = field(default_factory=dict)
    """Verdicts with other seeds, by the first of them."""
    stand_ins: dict[str, Trial] = field(default_factory=dict)

    @property
    def alarms(self) -> list[str]:
        """The negative controls with which the claim came out reproduced."""
        return [name for name, trial in self.stand_ins.items() if trial.alarms]


def as_json(results: Sequence[Result], left_out: Mapping[str, str], command: str) -> str:
    """Everything measured, seed by seed."""
    content = {
        "conditions": conditions(command),
        "left_out": dict(left_out),
        "claims": [_json(result) for result in results],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def read(path: Path, claims: Sequence[Claim]) -> list[Result]:
    """What `as_json` wrote to the file at `path` of these claims, without figures; none if absent.

    Raises:
        ValueError: when the file is something else, in one line.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        before = content["conditions"]
        told = {told["name"]: told for told in content["claims"]}
        return [_result(c, told[c.name], before) for c in claims if c.name in told]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path}: is not what `papers --json` writes ({type(error).__name__}: {error}). Name "
            "another file, or remove it."
        ) from error


def _json(result: Result) -> dict[str, Any]:
    claim = result.claim
    words = ("name", "group", "sentence", "citation", "formula", "registered")
    return {word: getattr(claim, word) for word in words} | {
        "setup": result.setup,
        "changes": list(claim.changes),
        "verdict": result.outcome.verdict,
        "verdict_with_other_seeds": {str(k): v for k, v in result.again.items()},
        "seconds": round(result.seconds, 1),
        "measured_with": list(result.measured_with),
        "setting": dict(result.setting),
        "remarks": list(result.outcome.remarks),
        "checks": [_check_json(check) for check in result.outcome.checks],
        "stand_ins": {name: _trial_json(trial) for name, trial in result.stand_ins.items()},
    }


def _trial_json(trial: Trial) -> dict[str, Any]:
    return {
        "verdict": None if trial.no_place else trial.outcome.verdict,
        "must_fail": trial.must_fail,
        "setting": dict(trial.setting),
        "seconds": None if trial.seconds is None else round(trial.seconds, 1),
        "no_place": trial.no_place,
        "checks": [_check_json(check) for check in trial.outcome.checks],
    }


def _trial(one: Mapping[str, Any]) -> Trial:
    outcome = Outcome(_checks(one["checks"]), [])
    younger = one.get("seconds"), one.get("no_place", "")
    return Trial(outcome, one["must_fail"], one["setting"], *younger)


def _check_json(check: Check) -> dict[str, Any]:
    mean, low, high = check.interval
    numbers = {
        "expected": check.allowed.expected,
        "allowed": check.allowed[:2],
        "mean": mean,
        "interval": (low, high),
        "per_seed": np.asarray(check.measured).tolist(),
    }
    return {
        "quantity": check.quantity,
        "source": check.source,
        "control": check.control,
        "verdict": check.verdict,
    } | {name: _finite(value) for name, value in numbers.items()}


def _result(claim: Claim, told: Mapping[str, Any], conditions: Sequence[str]) -> Result:
    """The opposite of `_json`. What is younger than the file has a default."""
    return Result(
        claim,
        Outcome(_checks(told["checks"]), [], told["remarks"]),
        told["setup"],
        float(told["seconds"]),
        told.get("measured_with", conditions),
        told.get("setting", {}),
        {int(seed): verdict for seed, verdict in told["verdict_with_other_seeds"].items()},
        {name: _trial(one) for name, one in told.get("stand_ins", {}).items()},
    )


def _checks(told: Sequence[Mapping[str, Any]]) -> list[Check]:
    return [
        Check(
            one["quantity"],
            np.array(one["per_seed"], np.float64),
            Range(float(one["allowed"][0]), float(one["allowed"][1]), one["expected"]),
            one["source"],
            one.get("control", False),
        )
        for one in told
    ]


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN: they are written as text."""
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value if value is None or abs(value) < float("inf") else str(value)
