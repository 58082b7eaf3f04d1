"""How wrong y, the variance and dx come out on inputs where floating point is hard.

An error is measured in what its quantity can lose at best (`reference`): y beside the spread of
y, the variance beside itself and epsilon, dx beside the largest gradient.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.bench.output import Report, absences, progress
from experiments.bench.reference import Answer, errors, make_problem, solve
from experiments.bench.rivals import Field, find_rivals

QUANTITIES = ("y", "var", "dx")
TOLERANCES = {"y": 5e-6, "var": 1e-5, "dx": 5e-6}
# y and dx are rounded to the type of x once.
ROUNDING = {"bfloat16": {"y": 5e-3, "dx": 5e-3}, "float16": {"y": 6e-4, "dx": 6e-4}}
FEATURES = 8


class Family(NamedTuple):
    """Inputs that are hard for one reason."""

    name: str
    x: np.ndarray
    epsilon: float = 1e-5


def families(rows: int, rng: np.random.Generator) -> Iterator[Family]:
    """The families, easy ones first; each has `rows` rows unless its name says another number."""

    def normal(mean: Any = 0.0, std: float = 1.0, rows: int = rows) -> np.ndarray:
        return (mean + std * rng.standard_normal((rows, FEATURES))).astype(np.float32)

    for mean, std in [(0, 1), (1e2, 1), (1e3, 1), (1e4, 1), (1e4, 0.1), (1e6, 1), (1e7, 1)]:
        yield Family(f"mean {mean:g}, std {std:g}", normal(mean, std))
    yield Family("constant 12345.678", np.full((rows, FEATURES), 12345.678, np.float32))
    for size in (1e6, 1e12):
        outlier = normal()
        outlier[0] = size
        yield Family(f"first row {size:g}", outlier)
    drift = np.sort(rng.uniform(0, 1e4, (rows, 1)), axis=0)
    yield Family("sorted drift, 0 to 1e4", normal(drift))
    scales = np.logspace(-20, 20, FEATURES)
    yield Family("scales 1e-20 to 1e20", (normal() * scales).astype(np.float32))
    for size in (1e18, 1e20, 1e30, 6e37):
        yield Family(f"std {size:g}", normal(std=size))
    yield Family("std 1e-6", normal(std=1e-6))
    yield Family("denormal, std 1e-39", normal(std=1e-39))
    yield Family("std 1e-6, epsilon 1e-12", normal(std=1e-6), epsilon=1e-12)
    yield Family("2 rows, mean 100", normal(100, rows=2))
    yield Family("3 rows, mean 100", normal(100, rows=3))
    yield Family("1000000 rows, mean 1000", normal(1e3, rows=1_000_000)[:, :2].copy())
    yield Family("bfloat16, mean 500, std 300", normal(500, 300).astype(jnp.bfloat16))
    yield Family("float16, mean 500, std 300", normal(500, 300).astype(np.float16))
    yield Family("float16, mean 20000, std 300", normal(2e4, 300).astype(np.float16))
    yield Family("float16, 70000 rows", normal(1, rows=70_000).astype(np.float16))


def measure(*, rows: int, seed: int) -> Report:
    """The errors of every library that is here on every family."""
    rng = np.random.default_rng(seed)
    field = find_rivals()
    found = []
    for family in families(rows, rng):
        progress(family.name)
        problem = make_problem(family.x, rng, family.epsilon)
        answer = solve(problem)
        tolerances = TOLERANCES | ROUNDING.get(str(problem.x.dtype), {})
        quantities = [name for name in QUANTITIES if _representable(answer, name)]
        for rival in field.rivals:
            outputs = rival.numbers(rival.call("all gradients", rival.put(problem)))
            error = errors(answer, {name: outputs[name] for name in quantities})
            found += [
                (family.name, name, rival.name, error[name], tolerances[name])
                for name in quantities
            ]
    data = pd.DataFrame(found, columns=["family", "quantity", "name", "error", "tolerance"])
    return Report("accuracy", "Accuracy", data, {"Largest error": table(data)}, _notes(field))


def table(data: pd.DataFrame) -> pd.DataFrame:
    """One row per family and quantity, one column per library."""
    wrong = ~(data["error"] <= data["tolerance"])  # NaN is wrong
    cells = [f"{error:.0e}{' ✗' if bad else ''}" for error, bad in zip(data["error"], wrong)]
    wide = data.assign(cell=cells).pivot_table(
        index=["family", "quantity"], columns="name", values="cell", aggfunc="first", sort=False
    )
    return wide[data["name"].unique()].reset_index()


def _representable(answer: Answer, quantity: str) -> bool:
    """Whether float32 can hold it: a std of 1e20 has a y and a dx, but no variance."""
    limits = np.finfo(np.float32)
    fine = np.min(answer.units[quantity]) * TOLERANCES[quantity] > limits.tiny
    return bool(fine and np.max(np.abs(answer.values[quantity])) < limits.max)


def _notes(field: Field) -> list[str]:
    bits = np.finfo(np.longdouble).nmant + 1
    return [
        f"Against numpy with {bits} bits of mantissa, for a random cotangent, scale and bias.",
        "Errors: y in units of max|y - bias| + |bias| + |scale|; var of var + epsilon; dx of "
        "|scale| max|cotangent| / sqrt(var + epsilon); the largest over elements and features.",
        f"✗: above {TOLERANCES['y']:g} (y, dx), {TOLERANCES['var']:g} (var); bfloat16 "
        f"{_pair('bfloat16')}, float16 {_pair('float16')}. nan: NaN or infinite. No row for what "
        "float32 cannot hold.",
        *absences(field.absent),
    ]


def _pair(dtype: str) -> str:
    return " and ".join(f"{bound:g} ({name})" for name, bound in ROUNDING[dtype].items())
