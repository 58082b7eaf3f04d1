"""A study's dataset made by hand, so that each number of the summary can be worked out on paper."""

import json

import numpy as np
import xarray as xr

from experiments.runner import results
from experiments.study.measure import BIN_EDGES, BINS

STEP = ("norm", "learning_rate", "seed", "step")
LAYERED = ("gradient_norm", "gradient_norm_cv", "gradient_noise", "update_ratio")
UNITS = {"test_accuracy": "1", "test_loss": "nats", "train_loss": "nats"}


def study(accuracy, *, norms=("none", "batch norm"), rates=(0.1, 1.0), layers=2, every=10):
    """A dataset with this test accuracy `(norm, learning_rate, seed, step)`.

    A run is taken to have diverged at the first step whose accuracy is NaN. Gradient quantities are
    `(1 + layer)` times one, two, ... in the order of `LAYERED`, times `1 + norm`. The distribution
    of pre-activations is one bin: the one of number `norm + layer + evaluation`, counted around.
    """
    accuracy = np.asarray(accuracy, dtype=np.float32)
    steps = np.arange(accuracy.shape[-1]) * every
    names = [f"hidden_{i + 1}" for i in range(layers - 1)] + ["output"]
    alive = np.where(np.isnan(accuracy), np.nan, 1).astype(np.float32)
    by_norm = (1 + np.arange(len(norms), dtype=np.float32)).reshape(-1, 1, 1, 1) * alive
    variables = {
        "test_accuracy": accuracy,
        "test_loss": 2.4 - 2.3 * accuracy,
        "train_loss": np.where(steps == 0, np.nan, 2.4 - 2.35 * accuracy),
        "gradient_cosine": 0.1 * by_norm,
        "activation_percentile": by_norm[..., None]
        * np.array([-1, 0, 1])
        * (1 + steps[:, None] / 50),
    }
    for i, name in enumerate(LAYERED):
        variables[name] = (1 + i) * by_norm[..., None] * (1 + np.arange(layers))
    bins = np.add.outer(np.arange(len(norms)), np.add.outer(range(len(steps)), range(layers)))
    one_hot = np.eye(BINS)[bins % BINS][:, None, None]
    variables["activation_histogram"] = alive[..., None, None] * one_hot
    last = {
        "activation_percentile": ("percentile",),
        "activation_histogram": ("place", "bin"),
        **dict.fromkeys(LAYERED, ("layer",)),
    }
    dataset = xr.Dataset(
        {k: ((*STEP, *last.get(k, ())), v.astype(np.float32)) for k, v in variables.items()},
        coords={
            "norm": list(norms),
            "learning_rate": list(rates),
            "seed": np.arange(accuracy.shape[2]),
            "step": steps,
            "layer": names,
            "place": [*(f"norm_{i + 1}" for i in range(layers - 1)), "output"],
            "percentile": [15, 50, 85],
            "bin": BIN_EDGES[:-1],
        },
        attrs={
            "name": "synthetic",
            "claim": "Batch norm trains faster & <better>.",
            "data": "Digits()",
            "activation": "sigmoid",
            "command": "python -m experiments run configs/synthetic.py --out results/synthetic",
            "config": json.dumps(
                {
                    "network": f"MLP({(100,) * (layers - 1)}, 'sigmoid')",
                    "optimizer": "SGD()",
                    "schedule": "constant",
                    "batch_size": 60,
                }
            ),
            "environment": json.dumps({"versions": {"jax": "0.10.2"}, "device": "cpu"}),
        },
    )
    for name, variable in dataset.data_vars.items():
        long_name = str(name).replace("_", " ")
        variable.attrs = {
            "long_name": long_name,
            "units": UNITS.get(str(name), "1"),
            "description": f"How {long_name} was measured.",
        }
    lost = np.isnan(accuracy)
    first = np.where(lost.any(-1), steps[lost.argmax(-1)], -1).astype(np.int32)
    dataset["diverged_at"] = (STEP[:3], first, {"long_name": "first bad step", "units": "step"})
    return dataset


def keep(dataset, folder):
    """Leaves `dataset` in `folder` as a finished study does."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / results.CONFIG).write_text(dataset.attrs["config"])
    results.save(dataset, folder)
    return folder


def learning(plateau, pace, *, points=41, seeds=5, spread=0.004, start=0.1):
    """Accuracy `(seed, point)` that climbs from `start` to about `plateau` at this `pace`."""
    step = np.arange(points)
    noise = spread * np.random.default_rng(0).standard_normal((seeds, points))
    curve = plateau - (plateau - start) * np.exp(-pace * step / points)
    return np.clip(curve + noise * (step > 0), 0, 1)


def of_several_values():
    """A network without norm, and two values of epsilon at each of two momentums."""
    names = ["none", "a", "b", "c", "d"]
    ends = np.array([0.5, 0.91, 0.92, 0.93, 0.94])
    accuracy = np.stack([[learning(e, 6), learning(e - 0.1, 6)] for e in ends])
    nan = np.nan
    return study(accuracy, norms=names).assign_coords(
        label=("norm", ["none", *["bn"] * 4]),
        momentum=("norm", [nan, 0.9, 0.9, 0.5, 0.5]),
        epsilon=("norm", [nan, 1.0, 0.1, 1.0, 0.1]),
    )
