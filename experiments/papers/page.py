"""The page of all claims, papers.md: verdicts, a table of norms, and a section for each claim."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.papers.controls import QUICK
from experiments.papers.output import FIGURES, again, quantity, summary
from experiments.papers.results import ITSELF, Result
from experiments.papers.seeds import moves
from experiments.report.inference import LEVEL
from experiments.report.markdown import markdown_table
from experiments.system.environment import conditions
from experiments.system.files import write_whole

PAGE = "papers.md"
_GROUPS = {
    "ranked": "Claims",
    "further": "More claims",
    "contested": "Often repeated, and contested here",
    "slogan": "Slogans: often said, and stated by no paper",
}
_HOW_TO_READ = (
    f"Measured: mean over seeds and its {LEVEL:.0%} interval (Student's t). A quantity is "
    "reproduced if the whole interval lies in the range, refuted if it lies outside or if a seed "
    "has no finite number where one is claimed, undecided if the seeds do not decide.",
    "A claim is reproduced or refuted if all its quantities are, mixed if some are the one and "
    "some the other, undecided otherwise. A control (a condition that the claim needs, such "
    "as what the networks without batch norm do) can keep a claim from being reproduced, and adds "
    "nothing to it.",
    "Ranges are theory's, published (a number or a direction that the paper reports), or for "
    "regression: what this set-up gave before, where the paper has no number for so small a "
    "network. A regression range guards against change and confirms nothing. Each claim says since "
    "when its ranges stand, and what was changed since.",
    f"Multiplicity: a claim needs every one of its quantities, so its chance to be called "
    f"reproduced wrongly is that of one of them, at most {(1 - LEVEL) / 2:.1%} at an end of a "
    "range. No correction is made for the number of claims; of those called refuted or mixed, some "
    "may be so by chance.",
    "Negative controls: something else in batch norm's place, with which a claim must not come out "
    "reproduced; measured in the quick form.",
)
_STAND_INS = (
    "What comes out with something else in batch norm's place, all else equal and the same ranges, "
    "all in the quick form: fewer seeds and smaller networks. Empty where it was not tried.",
    "Weight standardisation: kernels of mean 0 and one length for every unit, times the gain of "
    "the activation (Brock et al. 2021), then a scale and a bias. Tuned initial weights: no norm, "
    "and initial kernels each divided by a number such that what its layer gives out has mean "
    "square 1 over a batch (the scaling of LSUV, Mishkin & Matas 2016).",
)


def write_page(
    results: Sequence[Result], left_out: Mapping[str, str], command: str, folder: Path
) -> None:
    """`papers.md` in `folder`."""
    write_whole(folder / PAGE, _page(results, left_out, command).encode())


def _page(results: Sequence[Result], left_out: Mapping[str, str], command: str) -> str:
    with_ = conditions(command)
    lines = ["# What papers claim about batch norm, measured", ""]
    lines += [f"- {line}" for line in (*with_, *_HOW_TO_READ)]
    lines += [
        "- Rerun one: `python -m experiments papers NAME`, with `--data-dir DIR` for MNIST, "
        "`--stand-ins all` for other norms in its place.",
        "",
        " ".join(summary(results, left_out)),
        "",
        *_tested(results),
        *_seeds(results),
    ]
    header = ("claim", "verdict", "with other seeds", "seconds")
    for group, title in _GROUPS.items():
        members = [result for result in results if result.claim.group == group]
        if members:
            rows = [_overview_row(result) for result in members]
            lines += [f"## {title}", "", *markdown_table(header, rows), ""]
    lines += _norms(results)
    for result in results:
        lines += _section(result, with_)
    return "\n".join(lines).rstrip() + "\n"


def _overview_row(result: Result) -> tuple[str, ...]:
    name = result.claim.name
    link = f"[{name}](#{name}): {result.claim.sentence}"
    return link, result.outcome.verdict, again(result), f"{result.seconds:.0f}"


def _tested(results: Sequence[Result]) -> list[str]:
    """Which negative controls the tests measure, and when."""
    if not any(trial.must_fail for result in results for trial in result.stand_ins.values()):
        return []
    return [
        f"`make test` measures the negative controls of {len(QUICK)} claims again, in the quick "
        f"form: {', '.join(QUICK)}. `pytest -m long tests/experiments/papers` measures those of "
        "all others.",
        "",
    ]


def _seeds(results: Sequence[Result]) -> list[str]:
    told = moves(results)
    return ["## With other seeds", "", *(f"- {line}" for line in told), ""] if told else []


def _norms(results: Sequence[Result]) -> list[str]:
    """A table of verdicts, claim by norm, of all claims that other norms were tried for."""
    from experiments.papers.tools.stand_ins import RIVALS

    tried = [result for result in results if result.stand_ins.keys() & RIVALS.keys()]
    if not tried:
        return []
    notes: list[str] = []
    rows = [
        (
            f"[{result.claim.name}](#{result.claim.name})",
            *(_verdict_with(result, name, notes) for name in (ITSELF, *RIVALS)),
        )
        for result in tried
    ]
    return [
        "## The same claims of other norms",
        "",
        *(line for text in _STAND_INS for line in (text, "")),
        *markdown_table(("claim", ITSELF, *RIVALS), rows),
        "",
        *(line for i, note in enumerate(notes, start=1) for line in (f"({i}) {note}", "")),
    ]


def _verdict_with(result: Result, name: str, notes: list[str]) -> str:
    """The cell of `name`; why there can be no verdict goes to `notes`, and its number there."""
    trial = result.stand_ins.get(name)
    if trial is None:
        return ""
    if not trial.no_place:
        return trial.outcome.verdict
    if trial.no_place not in notes:
        notes.append(trial.no_place)
    return f"- ({notes.index(trial.no_place) + 1})"


def _section(result: Result, conditions: Sequence[str]) -> list[str]:
    claim, outcome = result.claim, result.outcome
    data = " --data-dir DIR" if claim.needs_mnist else ""
    rows = [
        (quantity(check), str(check.allowed), check.source, str(check), check.verdict)
        for check in outcome.checks
    ]
    return [
        f"## {claim.name}",
        "",
        f"**{claim.sentence}** {claim.citation}.",
        "",
        f"- Set-up: {result.setup}",
        f"- Formula: {claim.formula}",
        f"- Ranges registered: {claim.registered}",
        *(f"- Changed: {change}" for change in claim.changes),
        f"- Command: `python -m experiments papers {claim.name}{_options(result)}{data}`",
        *(
            f"- {line}"
            for line in result.measured_with
            if line not in conditions and not line.startswith("Command:")
        ),
        f"- Verdict: **{outcome.verdict}**",
        *(f"- {remark}" for remark in outcome.remarks),
        *_controls(result),
        "",
        *markdown_table(("quantity", "range", "source", "measured", "verdict"), rows),
        "",
        f"![{claim.name}]({FIGURES}/{claim.name}.svg)",
        "",
    ]


def _options(result: Result) -> str:
    """What of a command decides what is measured, in it."""
    quick, seed = (result.setting.get(name) for name in ("quick", "seed"))
    return " --quick" * bool(quick) + (f" --seed {seed}" if seed else "")


def _controls(result: Result) -> list[str]:
    """The negative controls of a claim, a line."""
    told = [
        f"{name} ({trial.outcome.verdict})"
        for name, trial in result.stand_ins.items()
        if trial.must_fail
    ]
    if not told:
        return []
    itself = result.stand_ins.get(ITSELF)
    beside = f"; itself: {itself.outcome.verdict}" if itself else ""
    return [
        f"- In its place, in the quick form, and not to be reproduced: {', '.join(told)}{beside}"
    ]
