"""Results of a training loop of one's own, as a finished study's folder that `report` reads."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from experiments.runner import folder, results
from experiments.runner.rows import Rows
from experiments.runner.variables import Variable, variables
from experiments.study.measure import BIN_EDGES, PERCENTILES
from experiments.study.tasks import DEFAULT, Task
from experiments.study.values import as_python, real, tuple_of, whole
from experiments.system import text
from experiments.system.environment import environment

_EXAMPLES = re.compile("(test|validation)_example")


def write_results(
    directory: str | Path,
    *,
    name: str,
    claim: str,
    norms: Sequence[str],
    learning_rates: Sequence[float],
    seeds: Sequence[int],
    steps: Sequence[int],
    measures: Mapping[str, Any],
    layers: Sequence[str] = ("all",),
    task: Task = DEFAULT,
    chance: float = 0.0,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Writes what a loop of one's own has measured into a folder, for `experiments report`.

    Args:
        directory: The folder; made if absent. One that holds another study, or files of a study's
            names without its `config.json`, is refused.
        name: Short name, for titles.
        claim: The sentence that the study tests.
        norms: Labels of what is compared; the first is the baseline.
        learning_rates: Distinct, positive.
        seeds: Distinct, from 0.
        steps: After which networks were evaluated, rising; 0 is before training.
        measures: Arrays by the names of a study's variables (docs/operations.md), along norm,
            learning rate, seed and, but for `test_example_score` and `diverged_at`, step; then
            `layer` for quantities of each layer. `test_accuracy` is needed, or the task's own
            score. NaN is what was not measured, and from the step on at which a run's loss was not
            finite; `diverged_at` is read off the score if it is not given.
        layers: Names, for quantities of each layer.
        task: What the score and the loss are called; accuracy and cross-entropy by default.
        chance: The score of guessing.
        config: What else the report shall say of the set-up: numbers and text.

    Returns:
        The folder.

    Raises:
        ValueError: naming what came and what is needed; also for a folder that is refused.
        SaveError: when it cannot be written to.

    Example:
        >>> write_results(  # doctest: +SKIP
        ...     "runs/mine", name="mine", claim="Batch norm helps.", norms=("none", "batch"),
        ...     learning_rates=(0.1,), seeds=(0, 1, 2), steps=(0, 100, 200),
        ...     measures={"test_accuracy": np.zeros((2, 1, 3, 3))},
        ... )
    """
    directory = Path(directory)
    coords = _coordinates(norms, learning_rates, seeds, steps, layers)
    for what, sentence in (("name", name), ("claim", claim)):
        if not text.is_plain(sentence):
            raise ValueError(f"{what}={sentence!r}: needs {text.PLAIN}.")
    dataset = _measured(measures, coords, task)
    own = {
        **{str(field): as_python(value) for field, value in (config or {}).items()},
        "name": name,
        "claim": claim,
        "norms": dict.fromkeys(coords["norm"]),
        **{field: as_python(coords[along]) for field, along in _FIELDS.items()},
        "evaluations": coords["step"].tolist(),
        "steps": int(coords["step"][-1]),
    }
    own = json.loads(json.dumps(own, default=str))
    dataset.attrs = {
        "name": name,
        "claim": claim,
        "data": str(own.get("data", "")),
        "activation": "",
        "score": f"test_{task.variable}",
        "chance": chance,
        "config": json.dumps(own),
        "environment": json.dumps(environment()),
    }
    if "test_example_score" in measures:
        dataset.attrs["test_examples"] = dataset.sizes["test_example"]
    directory.mkdir(parents=True, exist_ok=True)
    folder.check_config(own, directory)
    results.save_config(own, {"networks": coords["norm"]}, directory)
    Rows(directory).end(dataset)
    results.save(dataset, directory)
    return directory


_FIELDS = {"learning_rates": "learning_rate", "seeds": "seed"}


def _coordinates(norms: Any, rates: Any, seeds: Any, steps: Any, layers: Any) -> dict[str, Any]:
    rates, seeds, steps = (as_python([*given]) for given in (rates, seeds, steps))
    needed = {
        "norms": (
            0 < len({*norms}) == len(norms) and text.are_labels(dict.fromkeys(norms)),
            "labels",
        ),
        "learning_rates": (tuple_of(real, distinct=True)(rates) and min(rates) > 0, "positive"),
        "seeds": (tuple_of(whole(0))(seeds) and len({*seeds}) == len(seeds), "whole numbers"),
        "steps": (tuple_of(whole(0))(steps) and sorted({*steps}) == [*steps], "rising numbers"),
    }
    given = {"norms": norms, "learning_rates": rates, "seeds": seeds, "steps": steps}
    for field, (is_right, what) in needed.items():
        if not is_right:
            raise ValueError(f"{field}={given[field]!r}: needs distinct {what}, one at least.")
    return {
        "norm": [*norms],
        "learning_rate": np.array(rates, np.float64),
        "seed": np.array(seeds, np.int32),
        "step": np.array(steps, np.int32),
        "layer": [*layers],
        "place": ["output"],
        "percentile": np.array(PERCENTILES, np.int32),
        "bin": BIN_EDGES[:-1],
    }


def _measured(measures: Mapping[str, Any], coords: Mapping[str, Any], task: Task) -> xr.Dataset:
    known = variables(task, has_validation=any(n.startswith("validation") for n in measures))
    known = {n: v for n, v in known.items() if n in measures or not _EXAMPLES.search(n)}
    score = f"test_{task.variable}"
    if unknown := sorted(measures.keys() - known.keys()):
        raise ValueError(f"measures: {', '.join(unknown)}: known are {', '.join(known)}.")
    if score not in measures:
        raise ValueError(f"measures: {score} is needed, the score that networks are judged by.")
    given = {name: np.asarray(values) for name, values in measures.items()}
    examples = {
        known[name].dims[-1]: values.shape[-1] if values.ndim else 0
        for name, values in given.items()
        if _EXAMPLES.search(name)
    }
    dataset = results.lay_out(known, coords, examples)
    for name, values in given.items():
        dataset[name].values[...] = _right(name, values, known[name], dataset)
    for name in known.keys() - given.keys():
        dataset[name].attrs["description"] = "Not measured."
    if "diverged_at" not in given:
        lost = np.isnan(dataset[score].values)
        first = coords["step"][lost.argmax(-1)]
        dataset["diverged_at"].values[...] = np.where(lost.any(-1), first, -1)
    kept = np.where(dataset.diverged_at.values < 0, dataset[score].values[..., -1], 0)
    if np.isnan(kept).any():
        raise ValueError(f"{score}: is NaN at the last step of a run that has not diverged.")
    return dataset


def _right(name: str, values: np.ndarray, variable: Variable, dataset: xr.Dataset) -> np.ndarray:
    shape = dataset[name].shape
    if values.shape != shape or values.dtype.kind not in "biuf":
        along = ", ".join(variable.dims)
        raise ValueError(
            f"{name}: is {values.dtype}{list(values.shape)}, needs numbers {list(shape)}, along "
            f"{along}."
        )
    return values
