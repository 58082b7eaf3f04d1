"""Findings of a study in words: what its numbers show, and what they do not.

The words follow the verdicts of the summary: better, worse, equal within the margin, undecided.
Batch norm losing is worded as plainly as batch norm winning.
"""

from typing import Any

from experiments.report.inference import verdict
from experiments.system.text import counted

Summary = dict[str, Any]


def findings(summary: Summary) -> dict[str, str]:
    """The two halves of the paragraph that opens a report: `shows` and `does_not_show`."""
    compared = [_arm(summary, arm) for arm in summary["arms"]]
    compared += [_compared(summary, comparison) for comparison in summary["comparisons"]]
    return {
        "shows": "\n".join(compared or [_alone(summary)]),
        "does_not_show": " ".join(filter(None, [_limits(summary), _edges(summary)])),
    }


def percent(fraction: float | None, digits: int = 1) -> str:
    """`0.9746` as `97.5 %`, with a space that does not break."""
    return "unknown" if fraction is None else f"{100 * fraction:.{digits}f}\N{NO-BREAK SPACE}%"


def points(difference: float) -> str:
    """`-0.0123` as `−1.23`, in percentage points, with a true minus sign."""
    return f"{100 * difference:+.2f}".replace("-", "−")


def times(ratio: float) -> str:
    """A ratio to two decimals, to one from ten on, to none from a hundred on."""
    return f"{ratio:.{2 if ratio < 10 else 1 if ratio < 100 else 0}f}"


def _arm(summary: Summary, arm: Summary) -> str:
    if confirmed := confirmed_arm(summary, arm):
        return _confirmed(summary, confirmed)
    settings = "; ".join(f"“{label}” at {setting}" for label, setting in arm["settings"].items())
    where = f"Each at the best of its settings, {arm['tried']} at most ({settings})"
    return _outcome(arm, arm, summary, where)


def _confirmed(summary: Summary, comparison: Summary) -> str:
    confirmed, norms = summary["confirmation"], (comparison["norm"], comparison["baseline"])
    settings = "; ".join(f"“{label}” at {confirmed['settings'][label]}" for label in norms)
    seeds = counted(len(confirmed["seeds"]), "seed")
    where = f"On {seeds} that chose nothing, each at its best setting ({settings})"
    sentence = _outcome(comparison, comparison, summary, where)
    if len(confirmed["looks"]) > 1:
        first, last = confirmed["looks"]
        sentence += f" Looks were planned at {first} and at {last} seeds."
    return sentence


def confirmed_pair(summary: Summary, comparison: Summary) -> Summary | None:
    """Returns what fresh seeds say of two networks that are arms of their own; None if nothing."""
    return None if summary["arms"] else confirmed_arm(summary, comparison)


def confirmed_arm(summary: Summary, arm: Summary) -> Summary | None:
    """Returns what fresh seeds say of two arms, each at its best setting; None if nothing."""
    if not summary.get("confirmation"):
        return None
    of_norm = {c["norm"]: c for c in summary["confirmation"]["comparisons"]}
    return of_norm[arm["norm"]]


def _compared(summary: Summary, comparison: Summary) -> str:
    best, same = comparison["best_rate"], comparison["same_rate"]
    norm, baseline = comparison["norm"], comparison["baseline"]
    rates = best["learning_rate"]
    tried = len(summary["learning_rates"])
    if rates[norm] == rates[baseline]:
        where = f"At the learning rate {rates[norm]:g}"
        where += ", the best of both networks" if tried > 1 else ", the only one tried"
        sentences = [_outcome(comparison, best, summary, where)]
    else:
        own = f"“{norm}” at {rates[norm]:g}, “{baseline}” at {rates[baseline]:g}"
        where = f"Each at its best of the {tried} learning rates tried ({own})"
        alike = f"At the same rate, {rates[baseline]:g} (the best one of “{baseline}”)"
        sentences = [
            _outcome(comparison, best, summary, where),
            _outcome(comparison, same, summary, alike),
        ]
    if confirmed := confirmed_pair(summary, comparison):
        sentences[0] = _confirmed(summary, confirmed)
    if tried > 1:
        sentences += [_rate_for_rate(comparison), _stability(summary, comparison)]
    return " ".join(sentences)


def _outcome(comparison: Summary, pair: Summary, summary: Summary, where: str) -> str:
    norm, baseline = comparison["norm"], comparison["baseline"]
    difference, margin = pair["accuracy_difference"], 100 * summary["margin"]
    how = {
        "better": f"“{norm}” ends higher than “{baseline}”",
        "worse": f"“{norm}” ends lower than “{baseline}”",
        "equal": f"“{norm}” and “{baseline}” end equal within {margin:g} points",
        "undecided": f"it is undecided which of “{norm}” and “{baseline}” ends higher",
        "one seed": f"“{norm}” cannot be told from “{baseline}”",
    }[difference["verdict"]]
    gain = points(difference["mean"])
    sentence = f"{where}, {how}: {gain} points of test {summary['score']}"
    if difference["verdict"] == "one seed":
        sentence += ", from one seed and so without an interval"
    else:
        interval = f"{points(difference['low'])} to {points(difference['high'])}"
        sentence += f" ({100 * difference['level']:g} % interval {interval})"
    if difference["verdict"] == "undecided":
        sentence += f"; {_what_would_decide(difference, summary)}"
    return f"{sentence}; {_sooner(norm, baseline, pair['speed_up'])}."


def _what_would_decide(difference: Summary, summary: Summary) -> str:
    if difference["seeds_to_decide"]:
        return f"about {difference['seeds_to_decide']} seeds would decide"
    if summary["test_examples"]:
        return f"no number of seeds would decide, with {summary['test_examples']} test examples"
    return "no number of seeds that one can run would decide"


def highest_known(speed_ups: Summary) -> tuple[str, Summary] | None:
    """Returns the highest target about whose pace something is known: no easy one is picked."""
    return max(((t, s) for t, s in speed_ups.items() if s["kind"] != "unknown"), default=None)


def _sooner(norm: str, baseline: str, speed_ups: Summary) -> str:
    if (known := highest_known(speed_ups)) is None:
        lowest = percent(float(min(speed_ups)), 0)
        return f"it is not known which reaches {lowest} sooner"
    target, ratio = known
    goal, mean = percent(float(target), 0), ratio["mean"]
    if ratio["kind"] != "measured":
        winner, lead = (norm, mean) if ratio["kind"] == "at least" else (baseline, 1 / mean)
        if lead <= 1:
            return f"“{winner}” alone reaches {goal} with every seed"
        return f"“{winner}” reaches {goal} at least {times(lead)} times sooner"
    outcome = verdict(ratio, neutral=1.0)
    if outcome == "one seed":
        return f"its speed-up to {goal} is {times(mean)} in that one seed"
    low, high = times(ratio["low"]), times(ratio["high"])
    if outcome == "better":
        return f"it reaches {goal} {times(mean)} times sooner ({low} to {high})"
    if outcome == "worse":
        low, high = times(1 / ratio["high"]), times(1 / ratio["low"])
        return f"it reaches {goal} {times(1 / mean)} times later ({low} to {high})"
    bounds = f"speed-up {times(mean)}, {low} to {high}"
    return f"it reaches {goal} neither clearly sooner nor later ({bounds})"


def _rate_for_rate(comparison: Summary) -> str:
    outcomes = [c["accuracy_difference"]["verdict"] for c in comparison["by_learning_rate"]]
    said = {
        "better": "higher at {}",
        "worse": "lower at {}",
        "equal": "equal at {}",
        "undecided": "undecided at {}",
        "one seed": "undecided at {} (one seed to compare)",
    }
    tried = len(outcomes)
    if len(set(outcomes)) == 1:
        return f"Rate for rate it ends {said[outcomes[0]].format(f'all {tried}')}."
    parts = [said[o].format(outcomes.count(o)) for o in said if o in outcomes]
    return f"Rate for rate, of {tried}, it ends {_listed(parts)}."


def _stability(summary: Summary, comparison: Summary) -> str:
    networks = {n: summary["norms"][n] for n in (comparison["norm"], comparison["baseline"])}
    stable = [f"{stable_rate(network)} for “{norm}”" for norm, network in networks.items()]
    failed = [f"{_failed(network)} of “{norm}”" for norm, network in networks.items()]
    return f"The largest stable rate is {_listed(stable)}. Did not learn: {_listed(failed)}."


def _failed(network: Summary) -> str:
    failed = network["did_not_learn"]
    kinds = [run["by"] for run in failed["runs"]]
    said = {"loss": "loss not finite", "fell": "fell back", "stuck": "stuck at chance"}
    counts = [f"{kinds.count(kind)} {words}" for kind, words in said.items() if kind in kinds]
    aside = f" ({', '.join(counts)})" if counts else ""
    return f"{failed['count']} of the {failed['of']} runs{aside}"


def stable_rate(network: Summary) -> str:
    """A network's largest stable learning rate; `at least` where the sweep ends there."""
    rate = network["largest_stable_learning_rate"]
    if rate is None:
        return "none"
    return f"at least {rate:g}" if network["largest_stable_is_largest_tried"] else f"{rate:g}"


def _alone(summary: Summary) -> str:
    (norm, network), *_ = summary["norms"].items()
    rate, accuracy = network["best_learning_rate"], network["final_accuracy"]
    reach = ""
    if accuracy["low"] is not None:
        reach = f" (95 % interval {percent(accuracy['low'])} to {percent(accuracy['high'])})"
    return (
        f"“{norm}” is the only network of this study, so nothing is compared. At its best learning "
        f"rate, {rate:g}, it ends at {percent(accuracy['mean'])} test {summary['score']}{reach}."
    )


def _edges(summary: Summary) -> str:
    rates = summary["learning_rates"]
    if len(rates) < 2:
        return ""
    ends = {min(rates): "smallest", max(rates): "largest"}
    at_edge = [
        f"that of “{norm}” is the {ends[network['best_learning_rate']]} tried"
        for norm, network in summary["norms"].items()
        if network["best_learning_rate"] in ends
    ]
    if not at_edge:
        return ""
    return f"A wider sweep may move a best rate: {_listed(at_edge)}."


def _limits(summary: Summary) -> str:
    seeds, every, score = len(summary["seeds"]), summary["evaluate_every"], summary["score"]
    config = summary["config"]
    network = config.get("network", "One network")
    # A loop of one's own may not say.
    known = {"optimizer": "{}", "schedule": "schedule {}"}
    way = ", ".join(said.format(config[name]) for name, said in known.items() if config.get(name))
    by = f"by validation {score}; what is reported is test {score}"
    if not summary["validation"]:
        by = f"by test {score}, for want of validation data"
    chosen = f"; and each seed is read at the rate that the others chose {by}"
    chance = (
        "With one seed nothing here can be told from chance"
        if seeds == 1
        else f"The intervals span {seeds} seeds, of weights and batches, not other data or networks"
    )
    shared = summary["test_examples"]
    if shared and seeds > 1:
        chance += f", and the sampling error of the {shared} test examples, which all seeds share"
    return " ".join(
        [
            f"Test {score} is measured with population statistics, recalibrated on the "
            "training data, so no early point suffers from a running average that is still warming "
            "up.",
            f"{chance}{chosen if len(summary['learning_rates']) > 1 else ''}.",
            f"Time is counted in steps{f', read every {every}' if every else ''}, not in seconds.",
            f"{network} on {summary['data'] or 'small data'} says nothing of other networks, of "
            f"other data or batches, of other ways to train than {way or 'this one'}, for "
            f"{summary['steps']} steps, nor why any of this happens.",
        ]
    )


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
