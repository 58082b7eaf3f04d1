"""Time that a study's steps took."""

from typing import Any

import numpy as np
import xarray as xr

from experiments.runner.variables import SECONDS


def seconds_per_step(runs: xr.Dataset) -> dict[str, Any] | None:
    """Returns median and quartiles of one network's seconds per step and run, None if not known.

    Over the longest windows that have a number: what a window begins with counts least there.
    """
    if SECONDS not in runs:
        return None
    windows, seconds = np.diff(runs.step.values), runs[SECONDS].values[1:]
    windows = np.where(np.isfinite(seconds), windows, 0)
    chosen = seconds[windows == windows.max(initial=1)]
    if not chosen.size:
        return None
    low, median, high = np.quantile(chosen, [0.25, 0.5, 0.75])
    return {"median": median, "q25": low, "q75": high, "windows": chosen.size}
