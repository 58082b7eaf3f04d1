"""Results of claims on the terminal, and their figures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from experiments.papers.claim import Check
from experiments.papers.results import Result
from experiments.system.console import Console

FIGURES = "papers"
COLOUR = {"reproduced": "green", "refuted": "red", "mixed": "magenta", "undecided": "yellow"}


def print_result(result: Result, console: Console) -> None:
    """One claim with all its quantities."""
    claim, outcome = result.claim, result.outcome
    table = Table(title_justify="left")
    table.title = Text.assemble((claim.name, "bold"), f": {claim.sentence}")
    for column in ("quantity", "expected", "measured", "verdict"):
        table.add_column(column, overflow="fold")
    for check in outcome.checks:
        verdict = Text(check.verdict, style=COLOUR[check.verdict])
        table.add_row(*map(Text, (quantity(check), str(check.allowed), str(check))), verdict)
    console.print(table)
    for remark in outcome.remarks:
        console.print(f"- {remark}")


def print_stand_ins(result: Result, console: Console) -> None:
    """What came of a claim with something else in batch norm's place."""
    for name, trial in result.stand_ins.items():
        alarm = ", as it must not be" if trial.alarms else ""
        verdict = trial.no_place or f"{trial.outcome.verdict}{alarm}"
        console.print(f"{result.claim.name}, quick form, {name}: {verdict}", soft_wrap=True)


def print_overview(
    results: Sequence[Result], left_out: Mapping[str, str], console: Console
) -> None:
    """The verdicts, and what was not tried and why."""
    table = Table("claim", "verdict", "with other seeds", "seconds")
    for result in results:
        verdict = result.outcome.verdict
        table.add_row(
            result.claim.name,
            Text(verdict, style=COLOUR[verdict]),
            again(result),
            f"{result.seconds:.0f}",
        )
    console.print(table)
    for line in summary(results, left_out):
        console.print(line, soft_wrap=True)


def write_figure(result: Result, folder: Path) -> None:
    """The claim's figure in `papers/` in `folder`."""
    from experiments.papers.figures import draw, save

    (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    save(draw(result.outcome), folder / FIGURES / f"{result.claim.name}.svg")


def quantity(check: Check) -> str:
    """What a check measures, and whether it is a control."""
    return f"{check.quantity} (control)" if check.control else check.quantity


def again(result: Result) -> str:
    """The verdicts with other seeds."""
    return ", ".join(f"{seed}: {verdict}" for seed, verdict in result.again.items())


def summary(results: Sequence[Result], left_out: Mapping[str, str]) -> list[str]:
    """How many claims came out how, a line for papers and one for slogans."""
    seconds = sum(result.seconds for result in results)
    slogans = [result for result in results if result.claim.group == "slogan"]
    of_papers = [result for result in results if result not in slogans]
    papers = {result.claim.paper for result in of_papers}
    said = f"{len(of_papers)} claims of {len(papers)} papers: {_counts(of_papers)}."
    told = [said]
    if slogans:
        told.append(f"{len(slogans)} slogans that no paper states: {_counts(slogans)}.")
    told.append(f"Measured in {seconds:.0f} s.")
    trials = [trial for result in results for trial in result.stand_ins.values() if trial.must_fail]
    if trials:
        failed = sum(not trial.alarms for trial in trials)
        told.append(f"{failed} of {len(trials)} negative controls did not come out reproduced.")
    return told + [f"Left out: {name} ({reason})" for name, reason in left_out.items()]


def _counts(results: Sequence[Result]) -> str:
    count = Counter(result.outcome.verdict for result in results)
    return ", ".join(f"{count[verdict]} {verdict}" for verdict in COLOUR)
