"""Measurements of a study, as one `xarray.Dataset` in one file.

`xarray.load_dataset("DIR/metrics.nc")` opens it; `.to_dataframe()` makes it a pandas table.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from experiments.study.config import Study, as_json, networks_of
from experiments.study.measure import BIN_EDGES, FARTHEST, MOST_ROWS, PERCENTILES
from experiments.study.tasks import Task
from experiments.study.trace import Traced
from experiments.study.train import (
    FEWEST_PAIRS,
    NOISE_BATCHES,
    PERCENTILE_EXAMPLES,
    RECALIBRATION_EXAMPLES,
    STEPS_PER_PAIR,
)
from experiments.system import checksums
from experiments.system.checksums import DamagedError
from experiments.system.environment import environment
from experiments.system.files import write_whole

METRICS = "metrics.nc"
CONFIG = "config.json"
_ORDER = "order_of_variables"

_RUN = ("norm", "learning_rate", "seed")
_POPULATION = (
    f"with population statistics: those of the first {RECALIBRATION_EXAMPLES} training examples "
    "(or all, if fewer), as one batch at these weights"
)
_PAIRS = (
    f"on two successive steps in every {STEPS_PER_PAIR} since the last evaluation, and on "
    f"{FEWEST_PAIRS} such pairs at least"
)
_LOOK = (
    f"over the first {PERCENTILE_EXAMPLES} test examples (or all, if fewer), their positions "
    f"counted as examples, {MOST_ROWS} at most"
)


class _Variable(NamedTuple):
    dims: tuple[str, ...]
    long_name: str
    units: str
    description: str


def _judged(task: Task, split: str, of: str) -> dict[str, _Variable]:
    score, loss = task.score_name, task.loss_name
    return {
        f"{split}_{task.variable}": _Variable(
            ("step",), f"{split} {score}", "1", f"{score} on the {of}, {_POPULATION}."
        ),
        f"{split}_loss": _Variable(
            ("step",), f"{split} loss", task.loss_unit, f"Mean {loss} over the {of}, {_POPULATION}."
        ),
    }


def variables(task: Task, *, has_validation: bool) -> dict[str, _Variable]:
    """Returns all that is measured of a run at `task`, with its unit and how it is measured."""
    return {
        **_judged(task, "test", "test set"),
        **(_judged(task, "validation", "validation set") if has_validation else {}),
        "train_loss": _Variable(
            ("step",),
            "training loss",
            task.loss_unit,
            f"Mean {task.loss_name} of the batches trained on since the last evaluation, all "
            "steps.",
        ),
        **_OF_ANY_TASK,
    }


_OF_ANY_TASK = {
    "gradient_norm": _Variable(
        ("step", "layer"),
        "gradient norm",
        "loss / weight unit",
        f"L2 norm of the kernel's gradient, {_PAIRS}: the mean.",
    ),
    "gradient_norm_cv": _Variable(
        ("step", "layer"),
        "variation of the gradient norm",
        "1",
        f"L2 norm of the kernel's gradient, {_PAIRS}: sample standard deviation over mean.",
    ),
    "gradient_noise": _Variable(
        ("step", "layer"),
        "gradient noise",
        "1",
        f"sqrt(mean |g_b - g|^2) / |g| of the kernel's gradients g_b of {NOISE_BATCHES} training "
        "batches at the same weights, g their mean; pure noise gives about "
        f"{(NOISE_BATCHES - 1) ** 0.5:.1f}.",
    ),
    "gradient_cosine": _Variable(
        ("step",),
        "cosine between successive gradients",
        "1",
        f"Cosine between the gradients of all parameters, {_PAIRS}: the mean.",
    ),
    "update_ratio": _Variable(
        ("step", "layer"),
        "update-to-weight ratio",
        "1",
        f"|update| / |weights| of the kernel, {_PAIRS}: the mean.",
    ),
    "activation_percentile": _Variable(
        ("step", "percentile"),
        "output of the last norm",
        "1",
        f"Percentiles of each unit {_LOOK}, median over units, {_POPULATION}.",
    ),
    "activation_histogram": _Variable(
        ("step", "place", "bin"),
        "distribution of what norms give out",
        "1",
        f"Fraction of the values in each bin {_LOOK}, all units taken together, {_POPULATION}; "
        f"what lies beyond ±{FARTHEST:g} counts with the outermost bins. A network without norm is "
        "looked at in the same places, and each one's output last.",
    ),
    "diverged_at": _Variable(
        (),
        "step of divergence",
        "step",
        "Updates made when the loss was first not finite, -1 if it never was. The run was frozen "
        "there, and what was measured later is NaN.",
    ),
}


def blank(traced: Traced) -> xr.Dataset:
    """The dataset of a study before anything is measured: NaN everywhere, no run diverged.

    Where the study has several values of a field, `norm` names all networks, and each network's
    `label` among the study's norms and its values, NaN for none, are coordinates along it.
    """
    study = traced.study
    coords = {
        "norm": list(networks_of(study)),
        "learning_rate": np.array(study.learning_rates, np.float64),
        "seed": np.array(study.seeds, np.int32),
        "step": np.arange(0, study.steps + 1, study.evaluate_every, dtype=np.int32),
        "layer": traced.layers,
        "place": [*traced.places, "output"],
        "percentile": np.array(PERCENTILES, np.int32),
        "bin": BIN_EDGES[:-1],
    }
    dataset = xr.Dataset(coords=coords).assign_coords(_swept(study))
    measured = variables(study.task, has_validation=traced.examples.has_validation)
    for name, variable in measured.items():
        dims = _RUN + variable.dims
        shape = [len(coords[dim]) for dim in dims]
        empty = np.full(shape, -1, np.int32) if name == "diverged_at" else np.full(shape, np.nan)
        dataset[name] = dims, empty.astype(np.int32 if name == "diverged_at" else np.float32)
        dataset[name].attrs = {k: v for k, v in variable._asdict().items() if k != "dims"}
    dataset["step"].attrs = {"long_name": "training step", "units": "step"}
    dataset["learning_rate"].attrs = {"long_name": "learning rate"}
    dataset["bin"].attrs = {"long_name": "lower edge of the bin"}
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


def record(dataset: xr.Dataset, norm: str, step: int, measures: Mapping[str, np.ndarray]) -> None:
    """Writes what was measured at `step` of all runs of one of the study's norms into `dataset`.

    Each measure has a leading axis over runs: networks, then learning rates, then seeds, and
    padding after all.
    """
    mine = of_label(dataset, norm)
    shape = (mine.size, dataset.sizes["learning_rate"], dataset.sizes["seed"])
    evaluation = dataset.indexes["step"].get_loc(step)
    for name, values in measures.items():
        at = (mine,) if name == "diverged_at" else (mine, slice(None), slice(None), evaluation)
        dataset[name].values[at] = values[: np.prod(shape)].reshape(*shape, *values.shape[1:])


def labels(dataset: xr.Dataset) -> np.ndarray:
    """Of each network the label that it, or its program, has among the study's norms."""
    return dataset.coords.get("label", dataset.norm).values


def of_label(dataset: xr.Dataset, label: str) -> np.ndarray:
    """The positions of the networks of `dataset` with that `label`, in the order of their runs."""
    return np.flatnonzero(labels(dataset) == label)


def as_arrays(dataset: xr.Dataset) -> dict[str, np.ndarray]:
    """The variables of `dataset`, by name."""
    return {str(name): variable.values for name, variable in dataset.data_vars.items()}


def restore(dataset: xr.Dataset, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes `arrays`, from `as_arrays` of the same study, into `dataset`.

    Raises:
        ValueError: when a variable is missing, unknown, or of another shape or type.
    """
    mine = as_arrays(dataset)
    if odd := sorted(mine.keys() ^ arrays.keys()):
        raise ValueError(f"{', '.join(odd)}: measured by only one of two programs.")
    for name, table in mine.items():
        saved = arrays[name]
        if saved.shape != table.shape or saved.dtype != table.dtype:
            raise ValueError(
                f"{name} is {saved.dtype}{list(saved.shape)}, needed is "
                f"{table.dtype}{list(table.shape)}."
            )
        table[...] = saved


def save(dataset: xr.Dataset, directory: Path) -> Path:
    """Writes `metrics.nc`; whoever reads finds the old file or the new one, never a part."""
    path = directory / METRICS
    order = {_ORDER: " ".join(map(str, dataset.data_vars))}  # netCDF has its own
    write_whole(path, dataset.assign_attrs(order).to_netcdf(engine="scipy"))
    checksums.add(directory, [METRICS])
    return path


def save_config(study: Study, identity: Mapping[str, Any], directory: Path) -> None:
    """Writes `config.json`: the study as resolved, overrides included, and its `identity`."""
    text = json.dumps({**as_json(study), "identity": identity}, indent=2)
    write_whole(directory / CONFIG, f"{text}\n".encode())


def load(directory: Path) -> xr.Dataset:
    """The dataset of a finished study, all of it in memory.

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
    """The coordinates that tell the networks of a study apart which have the same label."""
    label_of, values_of = zip(*networks_of(study).values())
    fields = dict.fromkeys(field for values in values_of for field in values)
    if not fields:
        return {}
    each = {field: [values.get(field, np.nan) for values in values_of] for field in fields}
    return {name: ("norm", along) for name, along in {"label": [*label_of], **each}.items()}
