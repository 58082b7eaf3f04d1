"""Results of the papers' claims: on the terminal, as JSON, and as a page with figures."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from experiments.papers.claim import Check, Claim, Outcome, Range, Verdict
from experiments.report.inference import LEVEL
from experiments.report.markdown import markdown_table
from experiments.system.console import Console
from experiments.system.environment import conditions
from experiments.system.files import write_whole

PAGE, FIGURES = "papers.md", "papers"
_COLOUR = {"reproduced": "green", "not reproduced": "red", "fragile": "yellow"}
_GROUPS = {
    "ranked": "Claims",
    "further": "More claims",
    "contested": "Often repeated, and contested here",
}


@dataclass(frozen=True)
class Result:
    """A claim and what came of it."""

    claim: Claim
    outcome: Outcome
    seconds: float
    measured_with: Sequence[str]
    """Command, machine and versions, a line each."""
    setting: Mapping[str, Any]
    """What of `Setting` decides what is measured."""
    again: dict[int, Verdict] = field(default_factory=dict)
    """Verdicts with other seeds, by the first of them."""


def print_result(result: Result, console: Console) -> None:
    """One claim with all its quantities."""
    claim, outcome = result.claim, result.outcome
    table = Table(title_justify="left")
    table.title = Text.assemble((claim.name, "bold"), f": {claim.sentence}")
    for column in ("quantity", "expected", "measured", "verdict"):
        table.add_column(column, overflow="fold")
    for check in outcome.checks:
        verdict = Text(check.verdict, style=_COLOUR[check.verdict])
        table.add_row(*map(Text, (check.quantity, str(check.allowed), str(check))), verdict)
    console.print(table)
    for remark in outcome.remarks:
        console.print(f"- {remark}")


def print_overview(
    results: Sequence[Result], left_out: Mapping[str, str], console: Console
) -> None:
    """The verdicts, and what was not tried and why."""
    table = Table("claim", "verdict", "with other seeds", "seconds")
    for result in results:
        verdict = result.outcome.verdict
        table.add_row(
            result.claim.name,
            Text(verdict, style=_COLOUR[verdict]),
            _again(result),
            f"{result.seconds:.0f}",
        )
    console.print(table)
    for line in _summary(results, left_out):
        console.print(line, soft_wrap=True)


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


def write_figure(result: Result, folder: Path) -> None:
    """The claim's figure in `papers/` in `folder`."""
    from experiments.papers.figures import draw
    from experiments.report.figures import save

    (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    save(draw(result.outcome), folder / FIGURES / f"{result.claim.name}.svg")


def write_page(
    results: Sequence[Result], left_out: Mapping[str, str], command: str, folder: Path
) -> None:
    """`papers.md` in `folder`."""
    write_whole(folder / PAGE, _page(results, left_out, command).encode())


def _page(results: Sequence[Result], left_out: Mapping[str, str], command: str) -> str:
    lines = ["# What papers claim about batch norm, measured", ""]
    with_ = conditions(command)
    lines += [f"- {line}" for line in with_]
    lines += [
        f"- Measured: mean over seeds and its {LEVEL:.0%} interval (Student's t). A quantity "
        "is reproduced if the whole interval lies in the expected range, not reproduced if it lies "
        "outside, fragile if the seeds do not decide; a claim is fragile too if its quantities "
        "disagree.",
        "- Expected values are theory's, published, or \"own reference\": this set-up's, measured "
        "before, where the paper has no number for so small a network.",
        "- Rerun one: `python -m experiments papers NAME`, with `--data-dir DIR` for MNIST.",
    ]
    lines += ["", *_summary(results, left_out), ""]
    header = ("claim", "verdict", "with other seeds", "seconds")
    for group, title in _GROUPS.items():
        members = [result for result in results if result.claim.group == group]
        if members:
            rows = [_overview_row(result) for result in members]
            lines += [f"## {title}", "", *markdown_table(header, rows), ""]
    for result in results:
        lines += _section(result, with_)
    return "\n".join(lines).rstrip() + "\n"


def _section(result: Result, conditions: Sequence[str]) -> list[str]:
    claim, outcome = result.claim, result.outcome
    data = " --data-dir DIR" if claim.needs_mnist else ""
    rows = [
        (check.quantity, str(check.allowed), check.source, str(check), check.verdict)
        for check in outcome.checks
    ]
    return [
        f"## {claim.name}",
        "",
        f"**{claim.sentence}** {claim.citation}.",
        "",
        f"- Set-up: {claim.setup}",
        f"- Formula: {claim.formula}",
        f"- Command: `python -m experiments papers {claim.name}{data}`",
        *(f"- {line}" for line in result.measured_with if line not in conditions),
        f"- Verdict: **{outcome.verdict}**",
        *(f"- {remark}" for remark in outcome.remarks),
        "",
        *markdown_table(("quantity", "expected", "source", "measured", "verdict"), rows),
        "",
        f"![{claim.name}]({FIGURES}/{claim.name}.svg)",
        "",
    ]


def _overview_row(result: Result) -> tuple[str, ...]:
    name = result.claim.name
    link = f"[{name}](#{name}): {result.claim.sentence}"
    return link, result.outcome.verdict, _again(result), f"{result.seconds:.0f}"


def _again(result: Result) -> str:
    return ", ".join(f"{seed}: {verdict}" for seed, verdict in result.again.items())


def _summary(results: Sequence[Result], left_out: Mapping[str, str]) -> list[str]:
    count = Counter(result.outcome.verdict for result in results)
    verdicts = ", ".join(f"{count[verdict]} {verdict}" for verdict in _COLOUR)
    seconds = sum(result.seconds for result in results)
    told = [f"{len(results)} claims in {seconds:.0f} s: {verdicts}."]
    return told + [f"Left out: {name} ({reason})" for name, reason in left_out.items()]


def _json(result: Result) -> dict[str, Any]:
    claim = result.claim
    words = ("name", "group", "sentence", "citation", "setup", "formula")
    return {word: getattr(claim, word) for word in words} | {
        "verdict": result.outcome.verdict,
        "verdict_with_other_seeds": {str(k): v for k, v in result.again.items()},
        "seconds": round(result.seconds, 1),
        "measured_with": list(result.measured_with),
        "setting": dict(result.setting),
        "remarks": list(result.outcome.remarks),
        "checks": [_check_json(check) for check in result.outcome.checks],
    }


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
        "verdict": check.verdict,
    } | {name: _finite(value) for name, value in numbers.items()}


def _result(claim: Claim, told: Mapping[str, Any], conditions: Sequence[str]) -> Result:
    """The opposite of `_json`. What is younger than the file has a default."""
    checks = [
        Check(
            one["quantity"],
            np.array(one["per_seed"], np.float64),
            Range(float(one["allowed"][0]), float(one["allowed"][1]), one["expected"]),
            one["source"],
        )
        for one in told["checks"]
    ]
    return Result(
        claim,
        Outcome(checks, [], told["remarks"]),
        float(told["seconds"]),
        told.get("measured_with", conditions),
        told.get("setting", {}),
        {int(seed): verdict for seed, verdict in told["verdict_with_other_seeds"].items()},
    )


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN: they are written as text."""
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value if value is None or abs(value) < float("inf") else str(value)
