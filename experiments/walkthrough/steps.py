"""Batch norm's steps for one table, by `jbn`, in float64: the four places shown are right."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.walkthrough.table import read_table
from jbn import batch_moments, bessel_correction, normalize

# Three people of a meeting. Words are in hundreds: of each row a sum hears little else.
MEETING = pd.DataFrame(
    {"minutes": [8, 5, 2], "words": [1200, 600, 300], "questions": [1, 2, 9], "pauses": [3, 9, 6]},
    ["Ann", "Ben", "Cleo"],
    dtype=np.float64,
)


class Steps(NamedTuple):
    """Results of batch norm on the way from `x` to `y`, and of dividing by N-1 instead.

    Tables as `x` is for `normalised` and the outputs `y`, a number per feature for the rest.
    The `sample_` fields come from the variance divided by N-1, all others from that by N.
    """

    x: pd.DataFrame
    mean: pd.Series
    variance: pd.Series
    sigma: pd.Series
    normalised: pd.DataFrame
    gamma: pd.Series
    beta: pd.Series
    y: pd.DataFrame
    sample_variance: pd.Series
    sample_y: pd.DataFrame

    def frame(self) -> pd.DataFrame:
        """Returns all steps as one table: step and example by row, feature by column."""
        names = {"normalised": "x_hat", "sample_variance": "variance, N-1", "sample_y": "y, N-1"}
        tables = {
            names.get(field, field): part if isinstance(part, pd.DataFrame) else part.to_frame("").T
            for field, part in self._asdict().items()
        }
        return pd.concat(tables, names=["step", "example"])

    def _repr_html_(self) -> str:
        return self.frame().to_html(max_rows=100, max_cols=12, float_format="{:.4f}".format)


def walk(
    table: pd.DataFrame | Path | str = MEETING,
    gamma: Sequence[float] = (1.0,),
    beta: Sequence[float] = (0.0,),
    epsilon: float = 1e-5,
) -> Steps:
    """Computes every step of batch norm for one table, or for a file that `read_table` reads.

    Raises:
        ValueError: if there is one row only, a cell is not a finite number, or gamma, beta or
            epsilon do not fit.

    >>> walk(gamma=[2.0]).y.round(4)
          minutes   words  questions  pauses
    Ann    2.4495  2.6726    -1.6859 -2.4495
    Ben    0.0000 -0.5345    -1.1239  2.4495
    Cleo  -2.4495 -2.1381     2.8098  0.0000
    """
    data = table if isinstance(table, pd.DataFrame) else read_table(table)
    num_rows, num_features = data.shape
    if num_rows < 2 or not num_features:
        raise ValueError(
            f"the table has {num_rows} row(s) of {num_features} column(s); batch norm needs two "
            "rows or more: the variance of one example is always zero"
        )
    try:
        values = data.to_numpy(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the table needs numbers in every column: {error}") from None
    scale = _per_column("gamma", gamma, num_features)
    bias = _per_column("beta", beta, num_features)
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"epsilon is {epsilon}, needs a positive number such as 1e-5")
    with jax.enable_x64(True):
        x = jnp.asarray(values)
        affine = jnp.asarray(scale), jnp.asarray(bias)
        moments = batch_moments(x)
        sample = bessel_correction(moments)
        normalised = normalize(x, moments.mean, moments.var, epsilon=epsilon)
        y = normalize(x, moments.mean, moments.var, *affine, epsilon=epsilon)
        sample_y = normalize(x, sample.mean, sample.var, *affine, epsilon=epsilon)
        sigma = jnp.sqrt(moments.var)
    for feature, variance in zip(data.columns, moments.var.tolist(), strict=True):
        if not math.isfinite(variance):
            raise ValueError(
                f"column {feature}: its numbers are not finite, or too large to square"
            )

    def vector(numbers) -> pd.Series:
        return pd.Series(np.asarray(numbers), data.columns)

    def rows(numbers) -> pd.DataFrame:
        return pd.DataFrame(np.asarray(numbers), data.index, data.columns)

    return Steps(
        x=rows(values),
        mean=vector(moments.mean),
        variance=vector(moments.var),
        sigma=vector(sigma),
        normalised=rows(normalised),
        gamma=vector(scale),
        beta=vector(bias),
        y=rows(y),
        sample_variance=vector(sample.var),
        sample_y=rows(sample_y),
    )


def _per_column(name: str, numbers: Sequence[float], num_features: int) -> np.ndarray:
    for number in numbers:
        if not math.isfinite(number):
            raise ValueError(f"{name} is {number}, needs a finite number")
    if len(numbers) not in (1, num_features):
        raise ValueError(
            f"{name} has {len(numbers)} numbers and the table has {num_features} columns: "
            f"give one number, or {num_features}"
        )
    return np.broadcast_to(np.asarray(numbers, np.float64), (num_features,))
