"""The figure with a slider: what each norm gives out, at every step of training.

The page holds one set of curves, and a byte for each height of every other: a step of the slider
puts its bytes in the place of the curves' heights.
"""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from scipy import special

from experiments.report.figures import MUTED
from experiments.report.panels import DASHES, FAINT, Figure, axes, colour, panels, verbatim

VARIABLE = "activation_histogram"
KEPT = 0.98  # of what a norm gives out; room for the rest would be taken from this
PEAK = 100

_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sigmoid": special.expit,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * special.ndtr(x),
}


def distribution(runs: xr.Dataset, activation: str) -> Figure:
    """A panel per place of a norm and in it a curve per norm, at the last step.

    Traces are in the order of `frames`; the slope of the activation comes after them.
    """
    heights, edges, places = _heights(runs), _edges(runs), _inside(runs).place.values
    middle, reach = (edges[1:] + edges[:-1]) / 2, _reach(runs)
    figure = panels([str(place) for place in places], 1)
    for panel in range(len(places)):
        for i, norm in enumerate(runs.norm.values):
            figure.add_scatter(
                x=middle.astype(np.float32),
                y=heights[-1, panel, i],
                name=verbatim(norm),
                mode="lines",
                line={"color": colour(i), "width": 2, "dash": DASHES[i % len(DASHES)]},
                line_shape="spline",
                fill="tozeroy",
                fillcolor=colour(i) + FAINT,
                hovertemplate="%{y} % of its peak",
                legendgroup=str(norm),
                showlegend=panel == 0,
                **axes(panel),
            )
    if activation in _ACTIVATIONS:
        for panel in range(len(places)):
            _slope(figure, panel, activation, reach)
    figure.update_xaxes(range=(-reach, reach), title="", showticklabels=False)
    figure.update_xaxes(
        {"title": {"text": "output of the norm", "standoff": 4}, "showticklabels": True},
        selector={"anchor": axes(len(places) - 1)["yaxis"]},
    )
    figure.update_yaxes(range=(0, 1.15 * PEAK), showticklabels=False, ticks="", showgrid=False)
    figure.update_xaxes(matches="x", hoverformat=".2f")
    return figure.update_layout(hovermode="x")


def frames(runs: xr.Dataset) -> dict[str, Any]:
    """What the slider needs: the steps, and the heights `(step, curve, bin)` as base64 bytes."""
    heights = _heights(runs)
    return {
        "steps": runs.step.values.tolist(),
        "shape": [len(heights), heights[0, ..., 0].size, heights.shape[-1]],
        "bytes": base64.b64encode(heights.tobytes()).decode(),
    }


def _heights(runs: xr.Dataset) -> np.ndarray:
    """Densities `(step, place, norm, bin)`, each curve's highest at PEAK; 0 if all diverged."""
    fraction = _inside(runs)[VARIABLE].mean("seed").transpose("step", "place", "norm", "bin")
    density = np.nan_to_num(fraction.values) / np.diff(_edges(runs))
    peak = np.maximum(density.max(axis=-1, keepdims=True), 1e-9)
    return np.round(PEAK * density / peak).astype(np.uint8)


def _edges(runs: xr.Dataset) -> np.ndarray:
    return np.append(runs.bin.values, -runs.bin.values[0])


def _reach(runs: xr.Dataset) -> float:
    """How far from zero one must look to see what is to be seen, at any place and step."""
    edges = _edges(runs)
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


def _slope(figure: Figure, panel: int, activation: str, reach: float) -> None:
    x = np.linspace(-reach, reach, 121)
    slope = np.gradient(_ACTIVATIONS[activation](x), x)
    figure.add_scatter(
        x=x.astype(np.float32),
        y=np.round(PEAK * slope / slope.max()).astype(np.uint8),
        name=f"slope of the {activation}",
        mode="lines",
        line={"color": MUTED, "width": 1.2, "dash": "dot"},
        hoverinfo="skip",
        legendgroup="slope",
        showlegend=panel == 0,
        **axes(panel),
    )
