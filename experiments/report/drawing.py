"""What the page of one study draws: every figure, at every learning rate."""

import json

import xarray as xr

from experiments.report import charts, distribution
from experiments.report.looks import networks
from experiments.report.pages import Drawn
from experiments.report.runs import best_learning_rates, choices


def drawn_of(dataset: xr.Dataset) -> Drawn:
    """Returns what the page of a study draws, at every learning rate."""
    intact = dataset.where(dataset.diverged_at < 0)
    at_each = [intact.isel(learning_rate=i) for i in range(dataset.learning_rate.size)]
    drawn = {
        name: [chart(dataset)] if name in charts.OF_ALL_RATES else [chart(r) for r in at_each]
        for name, chart in charts.charts_of(dataset).items()
    }
    if distribution.VARIABLE in dataset and dataset.place.size > 1:
        activation, best = dataset.attrs.get("activation", ""), choices(dataset)[-1][1]
        ends = distribution.ends(best)
        drawn["distribution"] = [distribution.distribution(r, activation, ends) for r in at_each]
    shown, rates = networks(dataset), dataset.learning_rate.values.tolist()
    fields: dict[str, list[float]] = {}
    for field in (field for network in shown for field in network.values):
        fields[field] = sorted({n.values[field] for n in shown if field in n.values})
    return Drawn(
        shown,
        drawn,
        dataset.step.values,
        [f"{rate:g}" for rate in rates],
        rates.index(float(best_learning_rates(dataset)[0])),
        fields,
        _steps_per_epoch(dataset),
    )


def _steps_per_epoch(dataset: xr.Dataset) -> float | None:
    """How many steps see the training data once, where the study says how many data there are."""
    examples = dataset.attrs.get("train_examples")
    batch = json.loads(dataset.attrs.get("config", "{}")).get("batch_size")
    return float(examples) / batch if examples and isinstance(batch, int) else None
