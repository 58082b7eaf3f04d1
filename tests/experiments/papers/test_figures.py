"""Figures of claims: what they hold, where their legends stand, and how they are in the dark."""

import re

import numpy as np
from matplotlib.figure import Figure

from experiments.papers.claim import Line, Outcome, Plot
from experiments.papers.figures import draw, save
from experiments.report.looks import COLOURS

NAN = np.nan


def test_a_figure_holds_every_panel():
    lines = [
        Line("runs", [0, 1, 2], np.array([[1.0, 2.0, NAN], [1.5, NAN, NAN]])),
        Line("law", [0, 1, 2], np.array([1.0, 2.0, 3.0]), expected=True),
    ]
    figure = draw(Outcome([], [Plot("one", "x", "y", lines), Plot("two", "x", "y", lines, "xy")]))
    assert isinstance(figure, Figure)
    first, second = figure.axes
    assert (first.get_title("left"), second.get_yscale()) == ("one", "log")
    labels = [text.get_text() for text in first.get_legend().get_texts()]
    assert labels == ["runs", "expected"]


def test_a_norm_has_one_colour_in_all_figures():
    def colours(*labels):
        lines = [Line(label, [0, 1], np.ones((2, 2))) for label in labels]
        (axes,) = draw(Outcome([], [Plot("p", "x", "y", lines)])).axes
        return [line.get_color() for line in axes.get_lines()]

    none, batch = colours("no norm", "batch norm")
    assert colours("batch norm", "other")[0] == batch != colours("batch norm", "other")[1]
    assert colours("no norm") == [none]


def test_every_shade_that_is_no_networks_has_its_own_in_the_dark(tmp_path):
    path = tmp_path / "figure.svg"
    lines = [
        Line("no norm", [0, 1], [1, 2]),
        Line("theory", [0, 1], [1, 1], expected=True),
    ]
    save(draw(Outcome([], [Plot("p", "x", "y", lines)])), path)
    style, drawn = path.read_text().split("</style>", 1)
    assert "prefers-color-scheme: dark" in style
    shades = {*re.findall("(?:fill|stroke): #[0-9a-f]{6}", drawn)}
    assert len(shades) > 5
    networks = [f"{kind}: {colour}" for kind in ("fill", "stroke") for colour in COLOURS[:-1]]
    for shade in shades - {*networks}:
        assert f'[style*="{shade}"]' in style, shade


def test_a_legend_that_would_cover_something_stands_below():
    x = np.arange(200)
    waves = [np.sin(x + i) for i in range(4)]
    band = Line("a band", [0, 1], np.array([[0.0, 0.0], [1.0, 1.0]]))
    corner = Line("a line", [0, 1], np.array([0.0, 1.0]))
    everywhere = [Line(f"wave {i}", x, wave) for i, wave in enumerate(waves)]
    of_powers = [Line(f"wave {i}", x, 1e5 * 10 ** (i + wave)) for i, wave in enumerate(waves)]
    high = [Line("a high line", [1, 2], np.array([1e6, 1e6])), Line("a low", [1, 2], [1.0, 1.0])]
    for lines, log, below in (
        (everywhere, "", True),
        (of_powers, "y", True),
        ([band], "", True),
        ([corner], "", False),
        (high, "xy", False),
    ):
        figure = draw(Outcome([], [Plot("one", "x", "y", lines, log)]))
        figure.draw_without_rendering()
        (axes,) = figure.axes
        top, low = axes.get_legend().get_window_extent().y1, axes.bbox.y0
        assert (top < axes.xaxis.get_tightbbox().y0) == below
        assert below or top > low
        assert axes.get_legend().get_window_extent().y0 >= 0


def test_ticks_are_whole_where_all_places_are_and_long_labels_are_broken():
    label = "a quantity that has a name of more than forty characters"
    lines = [Line("layers", np.arange(1, 21), np.arange(20.0))]
    (axes,) = draw(Outcome([], [Plot("one", "layer", label, lines)])).axes
    assert all(tick == round(tick) for tick in axes.get_xticks())
    assert "\n" in axes.get_ylabel()
