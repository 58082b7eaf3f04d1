"""Measurements of a study, as one `xarray.Dataset` in one file.

`xarray.load_dataset("DIR/metrics.nc")` opens it; `.to_dataframe()` makes it a pandas table.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from experiments.runner.variables import SECONDS, Variable, variables
from experiments.study.config import Study, as_json, networks_of
from experiments.study.examples import SPLITS
from experiments.study.measure import BIN_EDGES, PERCENTILES
from experiments.study.trace import Traced
from experiments.study.windows import evaluation_steps
from experiments.system import checksums
from experiments.system.checksums import DamagedError
from experiments.system.environment import environment
from experiments.system.files import write_whole

METRICS = "metrics.nc"
CONFIG = "config.json"
_ORDER = "order_of_variables"


def blank(traced: Traced) -> xr.Dataset:
    """Returns the dataset of a study before anything is measured: NaN everywhere, no run diverged.

    Where the study has several values of a field, `norm` names all networks, and each network's
    `label` among the study's norms and its values, NaN for none, are coordinates along it.
    """
    study = traced.study
    coords = {
        "norm": list(networks_of(study)),
        "learning_rate": np.array(study.learning_rates, np.float64),
        "seed": np.array(study.seeds, np.int32),
        "step": np.array(evaluation_steps(study.steps, study.evaluate_every), np.int32),
        "layer": traced.layers,
        "place": [*traced.places, "output"],
        "percentile": np.array(PERCENTILES, np.int32),
        "bin": BIN_EDGES[:-1],
    }
    examples = {f"{split}_example": len(traced.examples.split(split)[1]) for split in SPLITS}
    measured = variables(study.task, has_validation=traced.examples.has_validation)
    dataset = lay_out(measured, coords, examples).assign_coords(_swept(study))
    activation = getattr(study.network, "activation", "")
    config = as_json(study)
    dataset.attrs = {
        "name": study.name,
        "claim": study.claim,
        "data": config["data"],
        "train_examples": traced.examples.train_x.shape[0],
        "activation": activation if isinstance(activation, str) else "",
        "score": f"test_{study.task.variable}",
        **_shared_test_examples(traced),
        "chance": 1 / traced.examples.outputs if study.task.variable == "accuracy" else 0.0,
        "config": json.dumps(config),
        "environment": json.dumps(environment()),
    }
    return dataset


def lay_out(
    measured: Mapping[str, Variable], coords: Mapping[str, Any], examples: Mapping[str, int]
) -> xr.Dataset:
    """Lays out a dataset of these variables along `coords`, and `examples` of each split, blank."""
    sizes = {dim: len(along) for dim, along in coords.items()} | dict(examples)
    dataset = xr.Dataset(coords=coords)
    for name, variable in measured.items():
        shape = [sizes[dim] for dim in variable.dims]
        dataset[name] = variable.dims, np.full(shape, variable.blank, variable.dtype)
        described = ("long_name", "units", "description")
        dataset[name].attrs = {word: getattr(variable, word) for word in described}
    dataset["step"].attrs = {"long_name": "training step", "units": "step"}
    dataset["learning_rate"].attrs = {"long_name": "learning rate"}
    dataset["bin"].attrs = {"long_name": "lower edge of the bin"}
    return dataset


def record(dataset: xr.Dataset, norm: str, step: int, measures: Mapping[str, np.ndarray]) -> None:
    """Writes what was measured at `step` of all runs of one of the study's norms into `dataset`.

    Each measure has a leading axis over runs: networks, then learning rates, then seeds, and
    padding after all; but for the seconds, one number for all.

    Raises:
        ValueError: when a measure is not this study's, or of another shape or type.
    """
    index = of_label(dataset, norm)
    shape = (index.size, dataset.sizes["learning_rate"], dataset.sizes["seed"])
    evaluation = dataset.indexes["step"].get_loc(step)
    for name, values in measures.items():
        if name not in dataset or values.dtype != dataset[name].dtype:
            raise ValueError(f"{name} of type {values.dtype} is not measured.")
        variable = dataset[name]
        if name == SECONDS:
            variable.values[index, evaluation] = values
            continue
        at = (index, slice(None), slice(None), evaluation) if "step" in variable.dims else (index,)
        variable.values[at] = values[: np.prod(shape)].reshape(*shape, *values.shape[1:])


def labels(dataset: xr.Dataset) -> np.ndarray:
    """Returns of each network the label that it, or its program, has among the study's norms."""
    return dataset.coords.get("label", dataset.norm).values


def of_label(dataset: xr.Dataset, label: str) -> np.ndarray:
    """Returns where in `dataset` the networks of that `label` are, in the order of their runs."""
    return np.flatnonzero(labels(dataset) == label)


def save(dataset: xr.Dataset, directory: Path) -> Path:
    """Writes `metrics.nc`; whoever reads finds the old file or the new one, never a part."""
    path = directory / METRICS
    order = {_ORDER: " ".join(map(str, dataset.data_vars))}  # netCDF has its own
    write_whole(path, dataset.assign_attrs(order).to_netcdf(engine="scipy"))
    checksums.add(directory, [METRICS])
    return path


def save_config(config: Mapping[str, Any], identity: Mapping[str, Any], directory: Path) -> None:
    """Writes `config.json`: the study as resolved, overrides included, and its `identity`."""
    text = json.dumps({**config, "identity": identity}, indent=2)
    write_whole(directory / CONFIG, f"{text}\n".encode())


def load(directory: Path) -> xr.Dataset:
    """Returns the dataset of a finished study, all of it in memory.

    Raises:
        DamagedError: when it is not as it was written, or not of the study that `config.json` says.
    """
    content = checksums.read(directory, METRICS)
    try:
        dataset = xr.load_dataset(io.BytesIO(content), engine="scipy")
        order = dataset.attrs.pop(_ORDER).split()
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        config.pop("identity", None)
        is_of_it = json.loads(dataset.attrs["config"]) == config
    except Exception as error:  # with a right checksum: it is no file of ours
        reason = f"{type(error).__name__}: {error}"
        raise DamagedError(f"{directory / METRICS}: is no study's result ({reason}).") from error
    if not is_of_it:
        raise DamagedError(f"{directory / METRICS}: is of another study than {CONFIG}.")
    return dataset[order]


def _shared_test_examples(traced: Traced) -> dict[str, int]:
    if traced.examples.by_seed:
        return {}
    return {"test_examples": traced.examples.test_x.shape[0]}


def _swept(study: Study) -> dict[str, tuple[str, list[Any]]]:
    """Returns the coordinates that tell the networks of a study apart which have the same label."""
    label_of, values_of = zip(*networks_of(study).values())
    fields = dict.fromkeys(field for values in values_of for field in values)
    if not fields:
        return {}
    each = {field: [values.get(field, np.nan) for values in values_of] for field in fields}
    return {name: ("norm", along) for name, along in {"label": [*label_of], **each}.items()}
