"""A study's folder, read and written up: summary.json, figures/*.svg, report.html and a table.

The page holds everything it shows, so it opens offline and years later. Its numbers come from
`summary`, its words from `findings`, its figures from `charts`, drawn for paper by `figures`; here
they are put together.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr
from rich.table import Column, Table
from rich.text import Text

from experiments.report import figures
from experiments.report.arms import chosen_settings
from experiments.report.budget import SHOWN
from experiments.report.captions import CAPTIONS, DISTRIBUTION
from experiments.report.charts import charts_of
from experiments.report.confirmation import summarize_confirmation
from experiments.report.drawing import drawn_of
from experiments.report.findings import findings, percent, points, stable_rate, times
from experiments.report.pages import render
from experiments.report.readings import TARGETS
from experiments.report.runs import judged, score_variable
from experiments.report.summary import GRADIENT_FIGURES, summarize
from experiments.report.tiles import Tile, arm_tiles, tiles
from experiments.runner import confirm, results
from experiments.runner.folder import FIGURES, PAGE, SUMMARY
from experiments.system import checksums
from experiments.system.console import Console, printable
from experiments.system.files import write_whole

_ESTIMATE = ("mean", "low", "high")

Summary = dict[str, Any]
Rows = list[list[str]]


def write_report(directory: Path) -> Path:
    """Write summary.json, figures/*.svg and report.html beside `directory`/metrics.nc.

    Returns:
        The path of report.html.

    Raises:
        FileNotFoundError: there is no metrics.nc.
        ValueError: metrics.nc is damaged, or not the dataset of a finished study.
    """
    directory = Path(directory)
    dataset = load_study(directory)
    summary = {**summarize(dataset), "confirmation": _confirmation(directory, dataset)}
    summary = {**summary, "findings": findings(summary)}
    write_whole(directory / SUMMARY, (_json(summary) + "\n").encode())
    (directory / FIGURES).mkdir(exist_ok=True)
    drawn = [name for name in charts_of(dataset) if name in figures.FIGURES]
    for name in drawn:
        figures.save(figures.FIGURES[name](dataset), directory / FIGURES / f"{name}.svg")
    page = directory / PAGE
    write_whole(page, _page(directory, dataset, summary).encode())
    checksums.add(directory, [SUMMARY, *(f"{FIGURES}/{name}.svg" for name in drawn), PAGE])
    return page


def _confirmation(directory: Path, dataset: xr.Dataset) -> Summary | None:
    plan, measured = confirm.planned(directory), confirm.confirmed(directory)
    if plan is None or measured is None:
        return None
    return summarize_confirmation(measured, plan, chosen_settings(dataset))


def print_table(summary: Summary, console: Console) -> None:
    """Prints the verdicts, the networks, their comparison and what it means, for a terminal."""
    for title, answers in _verdicts(summary):
        console.print(Text(title))
        for tile in answers:
            aside = ", ".join(filter(None, (tile.interval, tile.source)))
            words = f"  {tile.question} {tile.answer}: {tile.number}"
            console.print(Text(f"{words} ({aside})" if aside else words))
    for header, rows in _tables(summary):
        # A network's label may hold brackets, which would be markup to rich.
        table = Table(
            *[Column(Text(n), justify="right" if i else "left") for i, n in enumerate(header)]
        )
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
    for text in findings(summary).values():
        console.print(Text(text), end="\n\n")


def network_rows(summary: Summary) -> tuple[list[str], Rows]:
    """A column for each network: what it reached, how soon, and up to which rate it trains."""
    networks = summary["norms"].values()
    rows = [
        ["best learning rate", *(_rate(n["best_learning_rate"]) for n in networks)],
        [
            f"final test {summary['score']} (%)",
            *(_interval(n["final_accuracy"], _percent) for n in networks),
        ],
    ]
    for target in summary["targets"]:
        arrivals = [_arrival(n["steps_to"][f"{target:.2f}"]) for n in networks]
        rows.append([f"steps to {percent(target, 0)}", *arrivals])
    failed = [n["did_not_learn"] for n in networks]
    rows += [
        ["largest stable learning rate", *map(stable_rate, networks)],
        ["runs that did not learn, at any rate", *(f"{d['count']} of {d['of']}" for d in failed)],
    ]
    return ["at its best rate", *summary["norms"]], rows


def comparison_rows(comparison: Summary, score: str) -> tuple[list[str], Rows]:
    """A column at the same rate, and one with each network at its best."""
    pairs = [comparison["same_rate"], comparison["best_rate"]]
    header = [f"{comparison['norm']} vs {comparison['baseline']}"]
    for pair, where in zip(pairs, ("same rate", "best rates")):
        # One rate is said once.
        rates = dict.fromkeys(map(_rate, reversed(pair["learning_rate"].values())))
        header.append(f"{where} ({' vs '.join(rates)})")
    gains = [_interval(pair["accuracy_difference"], points) for pair in pairs]
    verdicts = [pair["accuracy_difference"]["verdict"] for pair in pairs]
    within = 100 * pairs[0]["accuracy_difference"]["margin"]
    rows = [
        [f"test {score} gained (points)", *gains],
        [f"verdict, equal within {within:g} points", *verdicts],
    ]
    for target in comparison["best_rate"]["speed_up"]:
        ratios = [_speed_up(pair["speed_up"][target]) for pair in pairs]
        rows.append([f"speed-up to {percent(float(target), 0)}", *ratios])
    return header, rows


def budget_rows(summary: Summary) -> tuple[list[str], Rows]:
    """A row for each number of settings tried, a column for each arm: the score to expect."""
    arms = summary["budget"].values()
    most = max(len(arm["tried"]) for arm in arms)

    def after(arm: Summary, tried: int) -> str:
        if tried > len(arm["tried"]):
            return ""
        return _interval({name: arm[name][tried - 1] for name in _ESTIMATE}, _percent)

    shown = sorted({*SHOWN, most} & {*range(1, most + 1)})
    rows = [[str(tried), *(after(arm, tried) for arm in arms)] for tried in shown]
    header = f"settings tried: test {summary['score']} to expect (%)"
    return [header, *summary["budget"]], rows


def pace_rows(summary: Summary) -> list[tuple[list[str], Rows]]:
    """A table for each comparison, a row for each target: both networks' steps, and the ratio."""
    what = f"steps to a test {summary['score']} of"
    if confirmed := summary.get("confirmation"):
        what = f"{_fresh(confirmed)}, {what}"
        return [_pace(c, c, confirmed["norms"], what) for c in confirmed["comparisons"]]
    return [_pace(c, c["best_rate"], summary["norms"], what) for c in summary["comparisons"]]


def _fresh(confirmed: Summary) -> str:
    return f"on {len(confirmed['seeds'])} fresh seeds"


def _pace(
    comparison: Summary, pair: Summary, networks: Summary, what: str
) -> tuple[list[str], Rows]:
    names, curve = (comparison["baseline"], comparison["norm"]), pair["speed_up_curve"]
    rows = []
    for i, target in enumerate(curve["target"]):
        if target >= 0.9 or round(100 * target) % 10 == 0:  # the last points are the dear ones
            ratio = _speed_up({name: column[i] for name, column in curve.items()})
            steps = [_seen_at(networks[name], target) for name in names]
            rows.append([percent(target, 0), *steps, ratio])
    return [what, *names, "speed-up"], rows


def _seen_at(network: Summary, target: float) -> str:
    curve, of = network["steps_curve"], network["steps_to"][f"{TARGETS[0]:.2f}"]["of"]
    if target not in curve["target"]:
        return "never"
    at = curve["target"].index(target)
    return _arrival({name: column[at] for name, column in curve.items()} | {"of": of})


def rate_rows(summary: Summary) -> tuple[list[str], Rows]:
    """A row for each network and learning rate: what it reached there, and the runs it lost."""
    final = f"final test {summary['score']} (%)"
    header = ["network", "learning rate", final, "did not learn"]
    rows = []
    for name, network in summary["norms"].items():
        for one in network["by_learning_rate"]:
            rate, accuracy = one["learning_rate"], one["final_accuracy"]
            lost = sum(run["learning_rate"] == rate for run in network["did_not_learn"]["runs"])
            rows.append([name, _rate(rate), _interval(accuracy, _percent), str(lost)])
    return header, rows


def gradient_rows(summary: Summary, dataset: xr.Dataset) -> tuple[list[str], Rows]:
    """A row for each gradient quantity and layer, a column for each network at its best rate."""
    networks = summary["norms"]
    rows = []
    for name in GRADIENT_FIGURES:
        label = dataset[name].attrs.get("long_name", name)
        found = [network["gradients"][name] for network in networks.values()]
        if "mean" in found[0]:
            rows.append([label, "all", *(_interval(estimate, _short) for estimate in found)])
            continue
        for layer in found[0]:
            rows.append([label, layer, *(_interval(f[layer], _short) for f in found)])
    return ["quantity", "layer", *networks], rows


def confirmation_rows(confirmed: Summary, score: str) -> tuple[list[str], Rows]:
    """A column for each norm at its chosen setting: what fresh seeds reach, and gain."""
    networks = confirmed["norms"]
    accuracy = [_interval(n["final_accuracy"], _percent) for n in networks.values()]
    rows = [
        ["setting", *(confirmed["settings"][name] for name in networks)],
        [f"final test {score} (%)", *accuracy],
    ]
    pairs = [None, *confirmed["comparisons"]]
    differences = [pair and pair["accuracy_difference"] for pair in pairs]
    rows += [
        [f"gained (points; {100 * confirmed['level']:g} % intervals)"]
        + ["" if d is None else f"{_interval(d, points)}, {d['verdict']}" for d in differences],
    ]
    for target in next(iter(networks.values()))["steps_to"]:
        goal = percent(float(target), 0)
        rows.append(
            [f"steps to {goal}", *(_arrival(n["steps_to"][target]) for n in networks.values())]
        )
        ratios = ["" if pair is None else _speed_up(pair["speed_up"][target]) for pair in pairs]
        rows.append([f"speed-up to {goal}", *ratios])
    return [_fresh(confirmed), *networks], rows


def _tables(summary: Summary) -> list[tuple[list[str], Rows]]:
    confirmed = summary.get("confirmation")
    return [
        *([confirmation_rows(confirmed, summary["score"])] if confirmed else []),
        network_rows(summary),
        *(comparison_rows(c, summary["score"]) for c in summary["comparisons"]),
    ]


def _verdicts(summary: Summary) -> list[tuple[str, list[Tile]]]:
    """Titles and tiles: of arms at their best settings, and of networks at one value of a field."""
    confirmed = summary.get("confirmation")
    fresh = f", {_fresh(confirmed)}" if confirmed else ""
    beside = [
        (f"{_beside(arm)} setting{fresh}", arm_tiles(summary, arm)) for arm in summary["arms"]
    ]
    own = "" if summary["arms"] else fresh
    return beside + [(f"{_beside(c)} rate{own}", tiles(summary, c)) for c in summary["comparisons"]]


def _beside(comparison: Summary) -> str:
    return f"“{comparison['norm']}” beside “{comparison['baseline']}”, each at its best"


def load_study(directory: Path) -> xr.Dataset:
    """What a finished study measured, smallest learning rate first; raises as `write_report`."""
    path = directory / "metrics.nc"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there: a report needs a finished study. "
            f"Make one with `python -m experiments run CONFIG --out {path.parent}`."
        )
    dataset = results.load(path.parent)
    wanted = {"diverged_at"}.union(*(caption.measures for caption in CAPTIONS.values()))
    if missing := sorted(wanted - set(map(str, dataset.data_vars))):
        raise ValueError(f"{path} lacks {', '.join(missing)}: it is not the result of a study.")
    if score_variable(dataset) not in dataset:
        raise ValueError(f"{path} lacks a score: it is not the result of a study.")
    if (judged(dataset).isel(step=-1).isnull() & (dataset.diverged_at < 0)).any():
        raise ValueError(f"{path} is of an unfinished study. Run it to its end, then report.")
    return dataset.sortby("learning_rate")


def _page(directory: Path, dataset: xr.Dataset, summary: Summary) -> str:
    name, drawn = printable(directory.name), drawn_of(dataset)
    captions = {n: CAPTIONS[n].about(summary["score"]) for n in CAPTIONS if n in drawn.figures}
    captions["accuracy"] = captions["accuracy"]._replace(measures=(score_variable(dataset),))
    return render(
        "report.html.jinja",
        name,
        drawn,
        summary=summary,
        findings=summary["findings"],
        verdicts=_verdicts(summary),
        tables=[*_tables(summary), *pace_rows(summary), budget_rows(summary)],
        every_rate=rate_rows(summary),
        gradients=gradient_rows(summary, dataset),
        captions=captions,
        distribution=DISTRIBUTION if "distribution" in drawn.figures else None,
        measured={name: v.attrs.get("description", "") for name, v in dataset.data_vars.items()},
        facts={
            "Configuration": settings(summary["config"]),
            "Environment": settings(summary["environment"]),
        },
        score=score_variable(dataset),
        command=dataset.attrs.get("command", "python -m experiments run CONFIG --out DIR"),
        directory=printable(shlex.quote(str(directory))),
        metrics=printable(json.dumps(str(directory / results.METRICS), ensure_ascii=False)),
    )


def settings(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one list: `versions.jax` and its value."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = _value(value)
    return flat


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    words = {None: "none", True: "yes", False: "no"}
    if value is None or isinstance(value, bool):
        return words[value]
    return value if isinstance(value, str) else json.dumps(value)


def _json(summary: Summary) -> str:
    return json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)


def _interval(estimate: Summary, say: Any) -> str:
    if estimate["mean"] is None:
        return "–"
    if estimate["low"] is None:
        return say(estimate["mean"])
    return f"{say(estimate['mean'])} ({say(estimate['low'])} to {say(estimate['high'])})"


def _arrival(steps: Summary) -> str:
    if steps["reached"] < steps["of"]:
        return "never" if not steps["reached"] else f"{steps['reached']} of {steps['of']} seeds"
    if steps["at_most"]:
        return f"at most {steps['mean']:.0f}"
    return _interval(steps, lambda count: f"{count:.0f}")


def _speed_up(ratio: Summary) -> str:
    if ratio["mean"] is None:
        return "unknown"
    if ratio["kind"] == "measured":
        return _interval(ratio, times)
    return f"{ratio['kind']} {times(ratio['mean'])}"


def _rate(rate: float | None) -> str:
    return "none" if rate is None else f"{rate:g}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
