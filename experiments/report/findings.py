"""What a summary's numbers show and what they do not, in words that follow their signs.

A difference is called one only where its 95 % interval excludes "no difference"; everything else is
level, whichever way its mean points. Batch norm losing is worded as plainly as batch norm winning.
"""

from typing import Any

Summary = dict[str, Any]


def findings(summary: Summary) -> dict[str, str]:
    """The two halves of the paragraph that opens a report: `shows` and `does_not_show`."""
    compared = [_compared(summary, comparison) for comparison in summary["comparisons"]]
    return {
        "shows": "\n".join(compared or [_alone(summary)]),
        "does_not_show": " ".join(filter(None, [_limits(summary), _edges(summary)])),
    }


def verdict(estimate: Summary, neutral: float = 0.0) -> str:
    """`higher` or `lower` than `neutral`, `level`, `one seed` (no interval) or `unknown`."""
    if estimate["mean"] is None:
        return "unknown"
    if estimate["low"] is None:
        return "one seed"
    if estimate["low"] > neutral:
        return "higher"
    return "lower" if estimate["high"] < neutral else "level"


def percent(fraction: float | None, digits: int = 1) -> str:
    """`0.9746` as `97.5 %`, with a space that does not break."""
    return "unknown" if fraction is None else f"{100 * fraction:.{digits}f}\N{NO-BREAK SPACE}%"


def points(difference: float) -> str:
    """`-0.0123` as `−1.23`, in percentage points, with a true minus sign."""
    return f"{100 * difference:+.2f}".replace("-", "−")


def times(ratio: float) -> str:
    """A ratio to two decimals, to one from ten on."""
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}"


def _compared(summary: Summary, comparison: Summary) -> str:
    best, same = comparison["best_rate"], comparison["same_rate"]
    norm, baseline = comparison["norm"], comparison["baseline"]
    rates = {name: rate for name, rate in best["learning_rate"].items() if rate is not None}
    if len(rates) < 2:
        lost = " and ".join(f"“{n}”" for n in (norm, baseline) if n not in rates)
        return f"Every run of {lost} diverged, so there is nothing to compare."
    tried = len(summary["learning_rates"])
    if rates[norm] == rates[baseline]:
        where = f"At the learning rate {rates[norm]:g}"
        where += ", the best of both networks" if tried > 1 else ", the only one tried"
        sentences = [_outcome(summary, comparison, best, where)]
    else:
        own = f"“{norm}” at {rates[norm]:g}, “{baseline}” at {rates[baseline]:g}"
        where = f"Each at its best of the {tried} learning rates tried ({own})"
        alike = f"At the same rate, {rates[baseline]:g} (the best one of “{baseline}”)"
        sentences = [
            _outcome(summary, comparison, best, where),
            _outcome(summary, comparison, same, alike),
        ]
    if tried > 1:
        sentences += [_rate_for_rate(comparison), _stability(summary, comparison)]
    return " ".join(sentences)


def _outcome(summary: Summary, comparison: Summary, pair: Summary, where: str) -> str:
    norm, baseline = comparison["norm"], comparison["baseline"]
    difference, seeds = pair["accuracy_difference"], len(summary["seeds"])
    outcome = verdict(difference)
    if outcome == "unknown":
        return f"{where}, no seed of both networks stayed finite to the end."
    how = {
        "higher": "ends higher than",
        "lower": "ends lower than",
        "level": "ends level with",
        "one seed": "cannot be told from",
    }[outcome]
    gain = points(difference["mean"])
    sentence = f"{where}, “{norm}” {how} “{baseline}”: {gain} points of test {summary['score']}"
    if outcome == "one seed":
        sentence += ", from one seed and so without an interval"
    else:
        sentence += f" (95 % interval {points(difference['low'])} to {points(difference['high'])})"
    if difference["pairs"] < seeds:
        sentence += f", over the {difference['pairs']} of {seeds} seeds at which both stayed finite"
    return f"{sentence}; {_sooner(norm, baseline, pair['speed_up'])}."


def _sooner(norm: str, baseline: str, speed_ups: Summary) -> str:
    """The highest target about which something is known, so that the easy ones are not picked."""
    known = {t: s for t, s in speed_ups.items() if s["kind"] != "unknown"}
    if not known:
        lowest = percent(float(min(speed_ups)), 0)
        return f"neither reaches {lowest} with every seed"
    target, ratio = max(known.items())
    goal, mean = percent(float(target), 0), ratio["mean"]
    if ratio["kind"] != "measured":
        winner, lead = (norm, mean) if ratio["kind"] == "at least" else (baseline, 1 / mean)
        bound = f", at least {times(lead)} times sooner" if lead > 1 else ""
        return f"“{winner}” alone reaches {goal} with every seed{bound}"
    outcome = verdict(ratio, neutral=1.0)
    if outcome == "one seed":
        return f"its speed-up to {goal} is {times(mean)} in that one seed"
    low, high = times(ratio["low"]), times(ratio["high"])
    if outcome == "higher":
        return f"it reaches {goal} {times(mean)} times sooner ({low} to {high})"
    if outcome == "lower":
        low, high = times(1 / ratio["high"]), times(1 / ratio["low"])
        return f"it reaches {goal} {times(1 / mean)} times later ({low} to {high})"
    bounds = f"speed-up {times(mean)}, {low} to {high}"
    return f"it reaches {goal} neither clearly sooner nor later ({bounds})"


def _rate_for_rate(comparison: Summary) -> str:
    outcomes = [verdict(c["accuracy_difference"]) for c in comparison["by_learning_rate"]]
    said = {
        "higher": "higher at {}",
        "lower": "lower at {}",
        "level": "level at {}",
        "one seed": "undecided at {} (one seed to compare)",
        "unknown": "incomparable at {} (no seed kept both finite)",
    }
    tried = len(outcomes)
    if len(set(outcomes)) == 1:
        return f"Rate for rate it ends {said[outcomes[0]].format(f'all {tried}')}."
    parts = [said[o].format(outcomes.count(o)) for o in said if o in outcomes]
    return f"Rate for rate, of {tried}, it ends {_listed(parts)}."


def _stability(summary: Summary, comparison: Summary) -> str:
    networks = {n: summary["norms"][n] for n in (comparison["norm"], comparison["baseline"])}
    stable = [f"{stable_rate(network)} for “{norm}”" for norm, network in networks.items()]
    score = summary["score"]
    lost = [f"{_lost(n['diverged'], score)} of “{norm}”" for norm, n in networks.items()]
    return f"The largest stable rate is {_listed(stable)}. Diverged: {_listed(lost)}."


def _lost(diverged: Summary, score: str) -> str:
    finite = sum(run["by"] == "accuracy" for run in diverged["runs"])
    aside = f" ({finite} with a finite loss, by {score})" if finite else ""
    return f"{diverged['count']} of the {diverged['of']} runs{aside}"


def stable_rate(network: Summary) -> str:
    """A network's largest stable learning rate; `at least` where the sweep ends there."""
    rate = network["largest_stable_learning_rate"]
    if rate is None:
        return "none"
    return f"at least {rate:g}" if network["largest_stable_is_largest_tried"] else f"{rate:g}"


def _alone(summary: Summary) -> str:
    (norm, network), *_ = summary["norms"].items()
    rate, accuracy = network["best_learning_rate"], network["final_accuracy"]
    if rate is None:
        return f"Every run of “{norm}”, the only network of this study, diverged."
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
    seeds, every = len(summary["seeds"]), summary["evaluate_every"]
    network = summary["config"].get("network", "One network")
    chosen = f"; and the rates called best were chosen on the same test {summary['score']}"
    chance = (
        "With one seed nothing here can be told from chance"
        if seeds == 1
        else f"The intervals span {seeds} seeds, of weights and batches, not other data or networks"
    )
    return " ".join(
        [
            f"Test {summary['score']} is measured with population statistics, recalibrated on the "
            "training data, so no early point suffers from a running average that is still warming "
            "up.",
            f"{chance}{chosen if len(summary['learning_rates']) > 1 else ''}.",
            f"Time is counted in steps{f', read every {every}' if every else ''}, not in seconds.",
            f"{network} on {summary['data'] or 'small data'} says nothing of other networks, of "
            "other data or batches, nor why any of this happens.",
        ]
    )


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
