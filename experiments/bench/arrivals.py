"""Simulated arrivals at a target: do intervals of steps and of their ratios hold the true ones?

Runs are seen at evaluations alone, and arrive some time before. A study's networks have a geometric
mean each, drawn anew, so that it lies anywhere between two evaluations.
"""

from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from experiments.report.inference import arrivals_at, geometric_interval, mean_interval, speed_up

_EARLY = (2, 5, 10, 20, 50)  # evaluations of every study, up to half of those that follow
GRIDS = {
    "every 20 steps": np.array([*_EARLY[:3], *range(20, 20_001, 20)]),
    "every 100 steps": np.array([*_EARLY, *range(100, 20_001, 100)]),
    "at each doubling": 2 ** np.arange(1, 15),
}
SEEDS = (2, 3, 5, 10)
SPREADS = (0.0, 0.1, 0.3, 0.6)
FEWEST, MOST = 40, 1000


def measure(studies: int, seed: int) -> pd.DataFrame:
    """Returns a row for each grid, number of seeds and spread: the shares of true values held."""
    rows = []
    for grid, seeds, spread in product(GRIDS, SEEDS, SPREADS):
        found = count(GRIDS[grid], seeds, spread, studies, np.random.default_rng(seed))
        rows.append({"grid": grid, "seeds": seeds, "spread": spread, **found})
    return pd.DataFrame(rows)


def count(
    evaluations: np.ndarray, seeds: int, spread: float, studies: int, rng: np.random.Generator
) -> dict[str, float]:
    """Returns the share of intervals that hold the true steps, and the true ratio of two networks.

    Args:
        evaluations: The steps of all evaluations.
        seeds: Of each study.
        spread: Standard deviation over seeds of the logarithm of a network's steps.
        studies: How many are simulated.
        rng: Of what is drawn.

    Returns:
        The shares `steps` and `ratio`, and `readings`: of the t intervals of what is read, which
        leave out that runs arrive before they are seen.
    """
    held = {"steps": 0, "ratio": 0, "readings": 0}
    for _ in range(studies):
        true = np.exp(rng.uniform(np.log(FEWEST), np.log(MOST), 2))
        arrived = true[:, None] * np.exp(spread * rng.standard_normal((2, seeds)))
        one, two = evaluations[np.searchsorted(evaluations, arrived)]
        held["steps"] += _holds(geometric_interval(arrivals_at(one, evaluations)), true[0])
        held["ratio"] += _holds(speed_up(one, two, evaluations), true[0] / true[1])
        held["readings"] += _holds(mean_interval(np.log(one)), np.log(true[0]))
    return {name: number / studies for name, number in held.items()}


def _holds(interval: dict[str, Any], value: float) -> bool:
    return bool(interval["low"] <= value <= interval["high"])


def tables(data: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Returns a table for each grid."""
    return {f"steps, evaluated {g}": _table(data[data["grid"] == g]) for g in GRIDS}


def _table(rows: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "seeds": list(rows["seeds"]),
            "spread over seeds": [f"{spread:g}" for spread in rows["spread"]],
            "steps covered, %": [f"{100 * share:.1f}" for share in rows["steps"]],
            "speed-up covered, %": [f"{100 * share:.1f}" for share in rows["ratio"]],
            "steps covered by readings alone, %": [f"{100 * s:.1f}" for s in rows["readings"]],
        }
    )


def notes(studies: int) -> list[str]:
    """Returns how the tables of steps were made."""
    return [
        f"Steps: {SCALE * studies} pairs of networks of each case, whose geometric means lie "
        f"anywhere between {FEWEST} and {MOST} steps; a seed's logarithm is normal about its "
        "network's, with the spread as standard deviation, and is read at the next of the "
        "evaluations: 2, 5, 10, .. and then as the heading says. Readings alone: the t interval of "
        "the evaluations' logarithms.",
    ]


SCALE = 5
"""Pairs of networks for each study that is asked for."""
