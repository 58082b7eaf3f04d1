"""Errors of y, the variance and dx on inputs where floating point is hard.

An error is measured in what its quantity can lose at best (`reference`): y beside the spread of
y, the variance beside itself and epsilon, dx beside the largest gradient.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import jbn.linen
from experiments.bench.families import FEATURES, Family, families
from experiments.bench.output import Report, absences
from experiments.bench.reference import Answer, Problem, errors, make_problem, solve
from experiments.bench.rivals import Field, Rival, find_rivals
from experiments.system.progress import announce

QUANTITIES = ("y", "var", "dx")
TOLERANCES = {"y": 2e-6, "var": 4e-6, "dx": 2e-6}  # the bound of docs/math.md
# y and dx are rounded to the type of x once.
ROUNDING = {
    "bfloat16": {"y": 5e-3, "dx": 5e-3},
    "float16": {"y": 6e-4, "dx": 6e-4},
    "float8_e4m3fn": {"y": 7e-2, "dx": 7e-2},
    "float8_e5m2": {"y": 0.14, "dx": 0.14},
}
FLOOR, TIMES = 1e-6, 10  # jbn is to be no worse than this many times the best rival, or the floor
MINE = "jbn"


def measure(*, rows: int, seed: int) -> Report:
    """Returns the errors of every library that is here on every family."""
    rng = np.random.default_rng(seed)
    field = find_rivals()
    records = []
    for family in families(rows, rng):
        announce(family.name)
        problem = make_problem(family.x, rng, family.epsilon)
        answer = solve(problem)
        tolerances = TOLERANCES | ROUNDING.get(str(problem.x.dtype), {})
        quantities = [name for name in QUANTITIES if _representable(answer, name)]
        if family.from_parts:
            quantities = ["var"]
        for rival in field.rivals:
            outputs = _outputs(rival, problem, family)
            error = errors(answer, {name: outputs[name] for name in quantities})
            records += [
                (family.name, name, rival.name, error[name], tolerances[name])
                for name in quantities
            ]
    records += _complex_rows(field, rows, rng)
    data = pd.DataFrame(records, columns=["family", "quantity", "name", "error", "tolerance"])
    notes = [*_notes(field), *_behind(data)]
    return Report("accuracy", "Accuracy", data, {"Largest error": table(data)}, notes)


def _outputs(rival: Rival, problem: Problem, family: Family) -> dict[str, np.ndarray]:
    if family.from_parts and rival.name == MINE:
        stats = family.from_parts(jnp.asarray(problem.x))
        return {name: np.asarray(value, np.float64) for name, value in stats._asdict().items()}
    try:
        return rival.numbers(rival.call("all gradients", rival.put(problem)))
    except Exception:  # some libraries refuse a type; the others go on
        return dict.fromkeys(QUANTITIES, np.array(np.nan))


def _complex_rows(field: Field, rows: int, rng: np.random.Generator) -> list[tuple]:
    """Returns errors of y and variance of the Linen layers that take complex numbers."""
    import flax.linen as nn

    options: dict[str, Any] = {"use_running_average": False, "momentum": 0.0}
    layers: dict[str, Any] = {
        MINE: jbn.linen.BatchNorm(**options),
        "flax.linen": nn.BatchNorm(**options),
        "flax.linen, two passes": nn.BatchNorm(**options, use_fast_variance=False),
    }
    records = []
    for mean in (1e4, 1e6):
        parts = rng.standard_normal((2, rows, FEATURES))
        x = (mean * (1 - 1j) + parts[0] + 1j * parts[1]).astype(np.complex64)
        wide = x.astype(np.clongdouble)
        var = np.square(np.abs(wide - wide.mean(0))).mean(0)
        y = (wide - wide.mean(0)) / np.sqrt(var + np.longdouble(np.float32(1e-5)))
        answer = Answer({"y": y, "var": var}, {"y": np.abs(y).max(0) + 1, "var": var + 1e-5})
        for rival in field.rivals:
            if rival.name not in layers:
                continue
            layer = layers[rival.name]
            variables = layer.init(jax.random.key(0), x)
            z, new = cast(Any, layer.apply(variables, x, mutable=["batch_stats"]))
            outputs = {"y": z, "var": new["batch_stats"]["var"].real}
            error = errors(answer, {name: np.asarray(value) for name, value in outputs.items()})
            name = f"complex layer, mean {mean:g} (1 - i)"
            records += [(name, key, rival.name, error[key], TOLERANCES[key]) for key in error]
    return records


def _behind(data: pd.DataFrame) -> list[str]:
    """Returns a line for the cells of jbn's that another library does much better."""
    wide = data.pivot(index=["family", "quantity"], columns="name", values="error")
    if MINE not in wide or len(wide.columns) < 2:
        return []
    allowed = (TIMES * wide.drop(columns=MINE).min(axis=1)).fillna(np.inf).clip(lower=FLOOR)
    own = cast(pd.Series, wide[MINE])
    over = own.where(~(own <= allowed), -1.0)  # NaN is over
    cells = [f"{', '.join(key)} ({x:.1e})" for key, x in cast(Any, over.items()) if x != -1]
    return [
        f"Cells of {MINE}'s above max({FLOOR:g}, {TIMES} times the best other's): "
        + ("; ".join(cells) or "none")
        + "."
    ]


def table(data: pd.DataFrame) -> pd.DataFrame:
    """Makes one row per family and quantity, one column per library."""
    wrong = ~(data["error"] <= data["tolerance"])  # NaN is wrong
    cells = [f"{error:.0e}{' ✗' if bad else ''}" for error, bad in zip(data["error"], wrong)]
    wide = data.assign(cell=cells).pivot_table(
        index=["family", "quantity"], columns="name", values="cell", aggfunc="first", sort=False
    )
    return wide[data["name"].unique()].fillna("").reset_index()


def _representable(answer: Answer, quantity: str) -> bool:
    """Tells whether float32 can hold it: a std of 1e20 has a y and a dx, but no variance."""
    limits = np.finfo(np.float32)
    fine = np.min(answer.units[quantity]) * TOLERANCES[quantity] > limits.tiny
    return bool(fine and np.max(np.abs(answer.values[quantity])) < limits.max)


def _notes(field: Field) -> list[str]:
    bits = np.finfo(np.longdouble).nmant + 1
    return [
        f"Against numpy with {bits} bits of mantissa, for a random cotangent, scale and bias.",
        "Errors: y in units of max|y - bias| + |bias| + |scale|; var of var + epsilon; dx of "
        "|scale| max|cotangent| / sqrt(var + epsilon); the largest over elements and features.",
        f"✗: above {TOLERANCES['y']:g} (y, dx), {TOLERANCES['var']:g} (var); y and dx of "
        + ", ".join(f"{dtype} above {bounds['y']:g}" for dtype, bounds in ROUNDING.items())
        + ". nan: NaN, infinite or refused. No row for what float32 cannot hold.",
        "Ghost, pool_moments and recalibrate put jbn's variance together from parts; the others "
        "have the whole batch at once. Complex numbers: the layers of Linen.",
        *absences(field.absent),
    ]
