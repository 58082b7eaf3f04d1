"""Budget curves: what one can expect after trying so many settings, for each arm."""

from math import comb
from typing import Any

import numpy as np
import xarray as xr

from experiments.report.arms import arms, has_arms, members
from experiments.report.inference import mean_interval
from experiments.report.readings import within_score
from experiments.report.runs import choosing_score, final_accuracy

SHOWN = (1, 2, 3, 5, 10, 20, 50)
"""How many settings tables and axes name, beside all."""


def budget_curves(dataset: xr.Dataset) -> dict[str, dict[str, list[Any]]]:
    """Returns for each arm what is expected after trying k of its settings, each with one seed.

    The settings are drawn at random without replacement, the best of them is taken by validation
    (or test, for want of it), and its test score is what is had (after Dodge et al. 2019, Show your
    work). Each seed has its own curve: `mean`, `low` and `high` are over seeds.
    """
    found = {}
    for label, curves in curves_by_seed(dataset).items():
        estimates = [within_score(mean_interval(at), dataset) for at in curves.T]
        columns = {name: [each[name] for each in estimates] for name in ("mean", "low", "high")}
        found[label] = {"tried": [*range(1, curves.shape[1] + 1)], **columns}
    return found


def curves_by_seed(dataset: xr.Dataset) -> dict[str, np.ndarray]:
    """Returns for each arm what is expected of k of its settings, `(seed, k)`, k from 1."""
    whole = arms(dataset) if has_arms(dataset) else dataset
    found = {}
    for label, networks in members(dataset).items():
        # An arm with fewer networks than another has its own there twice, at the end.
        own = slice(len(networks) * dataset.learning_rate.size)
        runs = whole.sel(norm=label).isel(learning_rate=own)
        final = final_accuracy(runs).transpose("seed", "learning_rate").values
        chosen_by = choosing_score(runs).transpose("seed", "learning_rate").values
        found[label] = np.array([expected_best(*pair) for pair in zip(final, chosen_by)])
    return found


def expected_best(scores: np.ndarray, chosen_by: np.ndarray) -> np.ndarray:
    r"""Returns the expected score of the best by `chosen_by` of k of n settings, for k = 1..n.

    $$E_k = \sum_{i=k}^{n} \binom{i-1}{k-1} \Big/ \binom{n}{k} \; s_{(i)}$$

    exactly, over all subsets of k, with $s_{(i)}$ the score of the setting that is i-th from below
    by `chosen_by`.
    """
    ranked, n = np.asarray(scores, float)[np.argsort(chosen_by, kind="stable")], len(scores)
    weights = [[comb(i, k - 1) / comb(n, k) for i in range(n)] for k in range(1, n + 1)]
    return np.array(weights) @ ranked
