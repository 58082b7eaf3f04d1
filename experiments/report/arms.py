"""Arms of a study with several values of a field: one for each norm, with all its settings.

A setting is a learning rate and a value of each such field. An arm is a network whose settings take
the place of learning rates, so that what chooses a rate chooses a setting.
"""

from typing import Any

import numpy as np
import xarray as xr

from experiments.report.runs import best_learning_rates
from experiments.runner.confirm import Setting
from experiments.study.config import SWEPT


def has_arms(dataset: xr.Dataset) -> bool:
    """Tells whether a study has networks of several values of a field."""
    return "label" in dataset.coords


def arms(dataset: xr.Dataset) -> xr.Dataset:
    """Returns a dataset with a network for each norm, whose learning rates are settings, counted.

    Of an arm with fewer settings than another some are there twice, which changes no choice.
    """
    networks_of = members(dataset)
    most = max(map(len, networks_of.values()))
    parts: list[xr.Dataset] = []
    for networks in networks_of.values():
        part = dataset.isel(norm=np.resize(networks, most))
        part = part.drop_vars([name for name in part.coords if part[name].dims == ("norm",)])
        part = part.stack(setting=("norm", "learning_rate"), create_index=False)
        part = part.drop_vars("learning_rate").rename(setting="learning_rate")
        settings = np.arange(part.sizes["learning_rate"], dtype=float)
        parts.append(part.assign_coords(learning_rate=settings))
    return xr.concat(parts, "norm").assign_coords(norm=list(networks_of))


def fields_of(dataset: xr.Dataset) -> list[str]:
    """Returns the fields that a study has several values of."""
    return [field for field in SWEPT if field in dataset.coords]


def place_of(dataset: xr.Dataset, label: str, setting: float) -> tuple[int, int]:
    """Returns the positions of the network and the learning rate of one setting of `arms`."""
    networks = members(dataset)[label]
    which, rate = divmod(int(setting), dataset.learning_rate.size)
    return int(networks[which % len(networks)]), rate


def setting_of(dataset: xr.Dataset, label: str, setting: float) -> Setting:
    """Returns the values and the learning rate of one setting of `arms`."""
    network, rate = place_of(dataset, label, setting)
    return Setting(values_of(dataset, network), float(dataset.learning_rate[rate]))


def best_networks(dataset: xr.Dataset) -> dict[str, int]:
    """Returns the position of each norm's network that is best at its best learning rate."""
    if not has_arms(dataset):
        return {label: int(only) for label, (only,) in members(dataset).items()}
    best = best_learning_rates(arms(dataset))
    labels = best.norm.values.tolist()
    return {n: place_of(dataset, n, float(best.sel(norm=n)))[0] for n in labels}


def values_of(dataset: xr.Dataset, network: int) -> dict[str, float]:
    """Returns a network's value of each field that it has one of."""
    values = {field: float(dataset[field][network]) for field in fields_of(dataset)}
    return {field: value for field, value in values.items() if not np.isnan(value)}


def chosen_settings(dataset: xr.Dataset) -> dict[str, Setting]:
    """Returns the best setting of each norm, as `best_learning_rates` chooses."""
    dataset = dataset.sortby("learning_rate")
    if has_arms(dataset):
        best = best_learning_rates(arms(dataset))
        return {n: setting_of(dataset, n, float(best.sel(norm=n))) for n in best.norm.values}
    best = best_learning_rates(dataset)
    return {n: Setting({}, float(best.sel(norm=n))) for n in best.norm.values.tolist()}


def opponents(dataset: xr.Dataset) -> list[tuple[str, str]]:
    """Returns each network beside the baseline's network of the same values, first the baseline's.

    The baseline is the first norm. Of fields that it has no value of, any value is the same.
    """
    if not has_arms(dataset):
        baseline, *others = dataset.norm.values.tolist()
        return [(baseline, other) for other in others]
    fields = fields_of(dataset)
    first, *others = members(dataset).values()

    def alike(one: int, other: int) -> bool:
        a, b = ([float(dataset[field][n]) for field in fields] for n in (one, other))
        return all(x == y or np.isnan(x) or np.isnan(y) for x, y in zip(a, b))

    names = dataset.norm.values.tolist()
    return [
        (names[one], names[other])
        for networks in others
        for other in networks
        for one in first
        if alike(one, other)
    ]


def members(dataset: xr.Dataset) -> dict[str, Any]:
    """Returns the positions of each norm's networks."""
    labels = (dataset.label if has_arms(dataset) else dataset.norm).values
    return {label: np.flatnonzero(labels == label) for label in dict.fromkeys(labels.tolist())}
