"""Simulated studies of known effects: how often a verdict of the report is wrong."""

from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import norm as gauss

from experiments.bench import arrivals, looks
from experiments.bench.output import Report
from experiments.report.readings import accuracy_difference
from experiments.report.runs import at_rates, rates_chosen_by_others
from experiments.study.config import DEFAULTS
from experiments.system.progress import announce

RATES = (0.03, 0.1, 0.3, 1.0)
CURVES = {"flat": (0.0, 0.0, 0.0, 0.0), "peaked": (-0.06, -0.02, 0.0, -0.02)}
ACCURACY = 0.95
DEVIATION = 0.01
ALIKE = 0.8
SEEDS = (3, 5, 10)
EFFECTS = (0.0, 0.0025, 0.01, 0.02)
EXAMPLES = (None, 1000)


class Case(NamedTuple):
    """A case to simulate: accuracy over rates, seeds, test examples shared, the true gain."""

    curve: str
    seeds: int
    examples: int | None
    effect: float


def cases() -> Iterator[Case]:
    yield from map(Case._make, product(CURVES, SEEDS, EXAMPLES, EFFECTS))


def measure(studies: int, seed: int) -> Report:
    """Simulates `studies` of each case and counts the verdicts and the intervals that cover."""
    rows = []
    for case in cases():
        announce(", ".join(f"{name} {value}" for name, value in case._asdict().items()))
        rows.append(case._asdict() | count(case, studies, np.random.default_rng(seed)))
    data = pd.DataFrame(rows)
    announce("looks at growing data")
    looked = looks.measure(looks.SCALE * studies, seed)
    tables = {
        f"{curve}, {_shared(examples)}": _table(data, curve, examples)
        for curve in CURVES
        for examples in EXAMPLES
    }
    announce("steps to a target")
    arrived = arrivals.measure(arrivals.SCALE * studies, seed)
    notes = _notes(studies, seed) + looks.notes(studies) + arrivals.notes(studies)
    rows = pd.concat([data, looked, arrived], ignore_index=True)
    tables |= looks.tables(looked) | arrivals.tables(arrived)
    return Report("verdicts", "Verdicts on simulated studies", rows, tables, notes)


def count(case: Case, studies: int, rng: np.random.Generator) -> dict[str, float]:
    """Returns the share of each verdict, and of intervals that cover the true gain."""
    verdicts: Counter[str] = Counter()
    covered = 0
    for _ in range(studies):
        dataset = simulate(case, rng)
        rates = rates_chosen_by_others(dataset)
        one, two = (at_rates(dataset.sel(norm=n), rates.sel(norm=n)) for n in ("none", "batch"))
        difference = accuracy_difference(one, two)
        verdicts[difference["verdict"]] += 1
        covered += difference["low"] <= case.effect <= difference["high"]
    shares = {name: verdicts[name] / studies for name in ("better", "worse", "equal", "undecided")}
    return shares | {"covered": covered / studies}


def simulate(case: Case, rng: np.random.Generator) -> xr.Dataset:
    """Draws the final accuracies of one study, as a study's dataset with two evaluations."""
    gain = np.array([0.0, case.effect])[:, None, None]
    expected = ACCURACY + np.array(CURVES[case.curve])[:, None] + gain
    accuracy = expected + DEVIATION * rng.standard_normal((2, len(RATES), case.seeds))
    attrs = {}
    if case.examples:
        accuracy = _on_shared_examples(accuracy, case.examples, rng)
        attrs["test_examples"] = case.examples
    dims = ("norm", "learning_rate", "seed")
    return xr.Dataset(
        {
            "test_accuracy": ((*dims, "step"), np.stack([0 * accuracy, accuracy], -1)),
            "diverged_at": (dims, np.full(accuracy.shape, -1)),
        },
        coords={
            "norm": ["none", "batch"],
            "learning_rate": list(RATES),
            "seed": np.arange(case.seeds),
            "step": [0, 1],
        },
        attrs=attrs,
    )


def _on_shared_examples(accuracy: np.ndarray, examples: int, rng: Any) -> np.ndarray:
    """Draws what each run gets right, where an example that is hard for one is hard for others."""
    difficulty = np.sqrt(ALIKE) * rng.standard_normal(examples)
    own = np.sqrt(1 - ALIKE) * rng.standard_normal((*accuracy.shape, examples))
    able = gauss.ppf(np.clip(accuracy, 1e-6, 1 - 1e-6))[..., None]
    return (difficulty + own < able).mean(-1)


def _table(data: pd.DataFrame, curve: str, examples: int | None) -> pd.DataFrame:
    chosen = data[(data["curve"] == curve) & (data["examples"].fillna(0) == (examples or 0))]
    columns: dict[str, Any] = {
        "true gain, points": [f"{100 * effect:g}" for effect in chosen["effect"]],
        "seeds": list(chosen["seeds"]),
    }
    for name in ("better", "worse", "equal", "undecided", "covered"):
        columns[f"{name}, %"] = [f"{100 * share:.1f}" for share in chosen[name]]
    return pd.DataFrame(columns)


def _shared(examples: int | None) -> str:
    return f"{examples} test examples that all share" if examples else "no error of the test set"


def _notes(studies: int, seed: int) -> list[str]:
    return [
        f"{studies} studies of each case, drawn from seed {seed}: two networks at rates "
        f"{', '.join(map(str, RATES))}; final accuracy {ACCURACY:.0%} at the best rate plus the "
        f"true gain, with a standard deviation of {100 * DEVIATION:g} point over seeds. Flat: the "
        "same at all rates; peaked: 6, 2, 0, 2 points lower.",
        f"Shared examples: right or wrong by a latent difficulty of which {ALIKE:.0%} of the "
        "variance is the example's own.",
        f"Equal is right for gains up to the margin, {100 * DEFAULTS['margin']:g} points. Covered: "
        "intervals that hold the true gain.",
    ]
