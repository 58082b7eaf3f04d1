"""The figure under the slider: the distribution of what each norm gives out, at every step."""

from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy import special

from experiments.report.specification import Axis, Density, Figure, Mark, Panel, Reference

VARIABLE = "activation_histogram"
KEPT = 0.98  # of what a norm gives out; room for the rest would be taken from this
# Narrow distributions reach higher than a panel: it ends where this share of all curves still fits.
FITS = 0.75

_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sigmoid": special.expit,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * special.ndtr(x),
}


def distribution(
    runs: xr.Dataset, activation: str, ends_: tuple[float, float] | None = None
) -> Figure:
    """Returns a panel for each place of a norm, with a density for each network at every step.

    All densities have the area one. `ends_` are how far the axes reach (`ends`), the same at
    every learning rate.
    """
    density, edges, inside = densities(runs), edges_of(runs), _inside(runs)
    highest = float(1 / np.diff(edges).min())  # all in the narrowest bin
    reach, top = ends(runs) if ends_ is None else ends_
    tick = 10 ** np.floor(np.log10(top)) * (5 if top >= 5 * 10 ** np.floor(np.log10(top)) else 1)
    y = Axis("density", limits=(0, top), ticks=((0.0, "0"), (float(tick), f"{tick:g}")))
    panels = []
    for i, place in enumerate(inside.place.values):
        marks: list[Mark] = _slope(activation, reach)
        for network in range(runs.norm.size):
            # The root keeps what is low, where a byte would be zero.
            heights = np.round(255 * np.sqrt(density[:, i, network] / highest)).astype(np.uint8)
            marks.append(Density(network, runs.step.values, edges, heights, highest))
        last = i == inside.place.size - 1
        x = Axis("output of the norm" if last else "", limits=(-reach, reach))
        panels.append(Panel(x, y, marks, str(place).replace("_", " ")))
    return Figure(panels, 1, shared=True)


def densities(runs: xr.Dataset) -> np.ndarray:
    """Returns densities `(step, place, norm, bin)`, the mean over seeds; 0 if all diverged."""
    fraction = _inside(runs)[VARIABLE].mean("seed").transpose("step", "place", "norm", "bin")
    return np.nan_to_num(fraction.values) / np.diff(edges_of(runs))


def edges_of(runs: xr.Dataset) -> np.ndarray:
    """Returns the edges of all bins."""
    return np.append(runs.bin.values, -runs.bin.values[0])


def ends(runs: xr.Dataset) -> tuple[float, float]:
    """Returns how far from zero there is something to see, at any place and step; and how high."""
    peaks = densities(runs).max(axis=-1)
    top = float(np.quantile(peaks[peaks > 0], FITS)) if (peaks > 0).any() else 1.0
    return _reach(runs), 1.1 * top


def _reach(runs: xr.Dataset) -> float:
    edges = edges_of(runs)
    outer = np.maximum(np.abs(edges[1:]), np.abs(edges[:-1]))
    fraction = _inside(runs)[VARIABLE].mean("seed")
    inside = [
        float(fraction.isel(bin=outer <= far).sum("bin", skipna=False).min())
        for far in np.unique(outer)
    ]
    far = np.unique(outer)[np.searchsorted(inside, KEPT)] if max(inside) >= KEPT else outer.max()
    return float(np.clip(far, 3, 20))


def _inside(runs: xr.Dataset) -> xr.Dataset:
    return runs.isel(place=slice(None, -1))


def _slope(activation: str, reach: float) -> list[Mark]:
    if activation not in _ACTIVATIONS:
        return []
    edges = np.linspace(-reach, reach, 801)  # one of them is 0, where a relu bends
    slope = np.diff(_ACTIVATIONS[activation](edges)) / np.diff(edges)
    middle = (edges[1:] + edges[:-1]) / 2
    return [Reference(middle, slope / slope.max(), f"slope of the {activation}")]
