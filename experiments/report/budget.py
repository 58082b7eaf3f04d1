"""Budget curves: what one can expect after trying so many settings, for each arm."""

from math import comb
from typing import Any

import numpy as np
import xarray as xr

from experiments.report.arms import arms, has_arms, members
from experiments.report.inference import mean_interval
from experiments.report.readings import within_score
from experiments.report.runs import choosing_score, final_accuracy


def budget_curves(dataset: xr.Dataset) -> dict[str, dict[str, list[Any]]]:
    """Returns for each arm what is expected after trying k of its settings, each with one seed.

    The settings are drawn at random without replacement, the best of them is taken by validation
    (or test, for want of it), and its test score is what is had (after Dodge et al. 2019, Show your
    work). Each seed has its own curve: `mean`, `low` and `high` are over seeds.
    """
    whole = arms(dataset) if has_arms(dataset) else dataset
    found = {}
    for norm in whole.norm.values.tolist():
        tried = _settings(dataset, norm)
        runs = whole.sel(norm=norm).isel(learning_rate=slice(tried))
        final = final_accuracy(runs).transpose("seed", "learning_rate").values
        chosen_by = choosing_score(runs).transpose("seed", "learning_rate").values
        curves = np.array([expected_best(*pair) for pair in zip(final, chosen_by)])
        estimates = [within_score(mean_interval(at), runs) for at in curves.T]
        columns = {name: [each[name] for each in estimates] for name in ("mean", "low", "high")}
        found[norm] = {"tried": [*range(1, tried + 1)], **columns}
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


def _settings(dataset: xr.Dataset, norm: str) -> int:
    # An arm with fewer networks than another has its own there twice, at the end.
    networks = len(members(dataset)[norm]) if has_arms(dataset) else 1
    return networks * dataset.learning_rate.size
