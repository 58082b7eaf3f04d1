"""How verdicts move from one set of seeds to another."""

from collections.abc import Sequence

from experiments.papers.results import Result


def moves(results: Sequence[Result]) -> list[str]:
    """Which claims have another verdict with other seeds, a sentence for each kind of move."""
    again = [result for result in results if result.again]
    if not again:
        return []
    verdicts = {r.claim.name: {r.outcome.verdict, *r.again.values()} for r in again}
    same = sum(len(found) == 1 for found in verdicts.values())
    seeds = sorted({seed for result in again for seed in result.again})
    told = [f"{same} of {len(again)} have the same verdict with seeds from {_listed(seeds)}."]
    kinds = {
        "Between reproduced and refuted": lambda found: {"reproduced", "refuted"} <= found,
        "Between mixed and one of these": lambda found: (
            "mixed" in found and bool({"reproduced", "refuted"} & found)
        ),
        "To or from undecided": lambda found: "undecided" in found and len(found) > 1,
    }
    for kind, holds in kinds.items():
        moved = [_course(result) for result in again if holds(verdicts[result.claim.name])]
        told.append(f"{kind}: {len(moved) or 'none'}{': ' if moved else ''}{'; '.join(moved)}.")
    return told


def _course(result: Result) -> str:
    others = ", ".join(f"{seed}: {verdict}" for seed, verdict in sorted(result.again.items()))
    return f"{result.claim.name} ({result.outcome.verdict}; {others})"


def _listed(numbers: Sequence[int]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} and {last}" if most else last
