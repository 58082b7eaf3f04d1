"""Parts of the page's figures: panels in a grid, and a norm's lines, bands and points.

The page re-arranges the grid to its width, and puts its own colours in the place of these, which
are those of light paper.
"""

import html
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from experiments.report.figures import COLOURS, INK, MUTED, PAPER, RULE

Figure = go.Figure

DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x")
# How opaque a band and a single seed are: a colour's last two digits.
FAINT, STRONG = "28", "8c"

_AXIS = {
    "gridcolor": RULE,
    "linecolor": MUTED,
    "tickcolor": MUTED,
    "ticks": "outside",
    "ticklen": 4,
    "zeroline": False,
    "automargin": True,
    "tickangle": 0,
}
_LAYOUT = {
    "template": "none",
    "font": {"color": INK, "size": 12},
    "paper_bgcolor": PAPER,
    "plot_bgcolor": PAPER,
    "margin": {"l": 10, "r": 12, "t": 10, "b": 10},
    "hovermode": "x unified",
    "hoverlabel": {"bgcolor": PAPER, "bordercolor": RULE, "font": {"color": INK}},
    "legend": {
        "orientation": "h",
        "x": 0,
        "y": 1,
        "yref": "container",
        "yanchor": "top",
        "bgcolor": PAPER + "00",
    },
}


def panels(titles: list[str], columns: int) -> Figure:
    """Empty axes in a grid `columns` wide, one for each title."""
    figure = go.Figure(layout=_LAYOUT)
    rows = -(-len(titles) // columns)
    figure.update_layout(grid={"rows": rows, "columns": columns, "pattern": "independent"})
    for i, title in enumerate(titles):
        n = _number(i)
        x = {"title": {"text": "step", "standoff": 4}, "showline": True, "showgrid": False}
        figure.update_layout(
            {
                f"xaxis{n}": {**_AXIS, **x, "anchor": f"y{n}"},
                f"yaxis{n}": {**_AXIS, "anchor": f"x{n}"},
            }
        )
        figure.add_annotation(
            text=verbatim(title),
            x=0,
            y=1.01,
            xref=f"x{n} domain",
            yref=f"y{n} domain",
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
            font={"color": MUTED, "size": 12.5},
        )
    return figure


def curves(
    figure: Figure,
    panel: int,
    quantity: xr.DataArray,
    form: str,
    unit: str = "",
    *,
    first: int = 0,
    dash: str | None = None,
    legend: bool | None = None,
) -> None:
    """Each norm's mean over seeds with its band, of `quantity` `(norm, seed, step)`.

    The legend is that of the first panel, unless said otherwise; `first` is the index, and so the
    colour, of the first norm.
    """
    legend = panel == 0 if legend is None else legend
    said = f"%{{y:{form}}} (%{{customdata[0]:{form}}} to %{{customdata[1]:{form}}}){unit}"
    last = max(float(quantity.step[-1]), 1)
    figure.update_layout({f"xaxis{_number(panel)}": {"range": (-0.015 * last, 1.025 * last)}})
    for i, norm in enumerate(quantity.norm.values):
        one = quantity.isel(norm=i).dropna("step", how="all")
        low, high = (x.values.astype(np.float32) for x in (one.min("seed"), one.max("seed")))
        _band(figure, panel, first + i, norm, one.step.values, low, high)
        line(
            figure,
            panel,
            first + i,
            norm,
            one.step.values,
            one.mean("seed"),
            dash=dash,
            customdata=np.stack([low, high], axis=-1),
            hovertemplate=said,
            showlegend=legend,
        )


def line(
    figure: Figure,
    panel: int,
    i: int,
    norm: str,
    x: np.ndarray,
    y: xr.DataArray,
    dash: str | None = None,
    **said: Any,
) -> None:
    """The i-th norm's line: in its colour, and with its dash and symbol unless `dash` is given."""
    figure.add_scatter(
        x=x,
        y=y.values.astype(np.float32),
        name=verbatim(norm),
        mode="lines" if dash else "lines+markers",
        line={"color": colour(i), "width": 1.8, "dash": dash or DASHES[i % len(DASHES)]},
        marker={"symbol": symbol(i), "size": 6, "maxdisplayed": 8},
        **_place(panel, norm),
        **said,
    )


def points(
    figure: Figure, panel: int, i: int, norm: str, x: Any, y: Any, marker: Any, **said: Any
) -> None:
    """Single points of the i-th norm, which come and go with its line."""
    figure.add_scatter(
        x=x,
        y=y,
        name=verbatim(norm),
        mode="markers+text" if "text" in said else "markers",
        marker={"color": colour(i), **marker},
        **_place(panel, norm),
        **{"showlegend": False, **said},
    )


def log(figure: Figure, quantity: xr.DataArray) -> Figure:
    """`figure` with a logarithmic axis, where there is anything positive to put on it."""
    if bool((quantity > 0).any()):
        figure.update_yaxes(type="log", dtick=1, tickformat=".3~g")
    return figure


def colour(i: int) -> str:
    """The i-th norm's."""
    return COLOURS[i % len(COLOURS)]


def symbol(i: int) -> str:
    """The i-th norm's."""
    return SYMBOLS[i % len(SYMBOLS)]


def axes(panel: int) -> dict[str, str]:
    """What a trace names to be drawn in a panel."""
    n = _number(panel)
    return {"xaxis": f"x{n}", "yaxis": f"y{n}"}


def verbatim(text: Any) -> str:
    """`text` as it is: what looks like HTML would be taken for it."""
    return html.escape(str(text), quote=False)


def _band(
    figure: Figure, panel: int, i: int, norm: str, x: np.ndarray, low: np.ndarray, high: np.ndarray
) -> None:
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        mode="none",
        fill="toself",
        fillcolor=colour(i) + FAINT,
        hoverinfo="skip",
        showlegend=False,
        **_place(panel, norm),
    )


def _place(panel: int, norm: str) -> dict[str, str]:
    """The panel's axes, and the legend's entry that shows and hides."""
    return {**axes(panel), "legendgroup": str(norm)}


def _number(panel: int) -> str:
    return "" if panel == 0 else str(panel + 1)
