"""Confirmation of a study in numbers: what chosen settings reach on seeds that chose nothing."""

from collections.abc import Mapping
from typing import Any

import xarray as xr

from experiments.report.inference import level_of_look
from experiments.report.readings import compare, scores
from experiments.report.summary import plain
from experiments.runner.confirm import Plan, Setting

DECIDED = ("better", "worse", "equal")


def decides(measured: xr.Dataset, plan: Plan) -> bool:
    """Tells whether every comparison with the first norm has a verdict."""
    verdicts = [c["accuracy_difference"]["verdict"] for c in _comparisons(measured, plan)]
    return all(verdict in DECIDED for verdict in verdicts)


def summarize_confirmation(
    measured: xr.Dataset, plan: Plan, settings: Mapping[str, Setting]
) -> dict[str, Any]:
    """Returns the numbers of a confirmation as JSON types.

    Args:
        measured: From `confirm.confirmed`, with the attributes of the study's dataset.
        plan: By which it was.
        settings: Of each norm.
    """
    level = level_of_look(len(plan.looks))
    norms = {n: scores(measured.sel(norm=n), level) for n in measured.norm.values.tolist()}
    return plain(
        {
            "seeds": measured.seed.values,
            "looks": plan.looks,
            "level": level,
            "settings": {label: str(setting) for label, setting in settings.items()},
            "norms": norms,
            "comparisons": _comparisons(measured, plan),
        }
    )


def _comparisons(measured: xr.Dataset, plan: Plan) -> list[dict[str, Any]]:
    baseline, *others = measured.norm.values.tolist()
    one, level = measured.sel(norm=baseline), level_of_look(len(plan.looks))
    return [
        {"norm": norm, "baseline": baseline, **compare(one, measured.sel(norm=norm), level)}
        for norm in others
    ]
