"""The page's figures hold the numbers of the dataset, and the slider its distributions."""

import base64

import chex
import numpy as np
import pytest
from synthetic import learning, of_several_values, study

from experiments.report import charts, distribution
from experiments.report.runs import choices
from experiments.study.measure import BINS


def sweep(**shape):
    accuracy = [[learning(0.93, 6), learning(0.90, 9)], [learning(0.97, 12), learning(0.98, 30)]]
    return study(np.array(accuracy), **{"layers": 3, **shape})


def runs(dataset=None):
    return choices(sweep() if dataset is None else dataset)[-1][1]


def lines(figure, norm):
    return [t for t in figure.data if t.name == norm and "lines" in t.mode]


def test_a_line_is_the_mean_and_its_band_the_extremes():
    chosen = runs()
    (line,) = lines(charts.accuracy(chosen), "batch norm")
    accuracy = 100 * chosen.test_accuracy.sel(norm="batch norm")
    chex.assert_trees_all_close(np.asarray(line.y), accuracy.mean("seed").values, rtol=1e-5)
    bounds = np.stack([accuracy.min("seed"), accuracy.max("seed")], axis=-1)
    chex.assert_trees_all_close(np.asarray(line.customdata), bounds, rtol=1e-5)
    _, band = (t for t in charts.accuracy(chosen).data if t.fill == "toself")
    np.testing.assert_allclose(band.y, [*bounds[:, 1], *bounds[::-1, 0]], rtol=1e-5)
    assert band.legendgroup == line.legendgroup  # they are hidden together


@pytest.mark.parametrize("name", charts.CHARTS)
def test_every_network_is_in_the_legend_once(name):
    figure = charts.CHARTS[name](sweep() if name == "learning_rate" else runs())
    shown = [t.name for t in figure.data if t.showlegend is not False and t.mode != "none"]
    assert shown == ["none", "batch norm"]


@pytest.mark.parametrize("name", sorted(set(charts.CHARTS) - {"steps"}))
def test_networks_differ_in_more_than_colour(name):
    figure = charts.CHARTS[name](sweep() if name == "learning_rate" else runs())
    one, two = (lines(figure, norm)[0] for norm in ("none", "batch norm"))
    assert one.line.color != two.line.color
    assert name == "percentiles" or one.line.dash != two.line.dash


def test_a_label_is_not_taken_for_html():
    figure = charts.accuracy(runs(sweep(norms=["none", "a <b> & c"])))
    assert [t.name for t in figure.data if t.name] == ["none", "a &lt;b&gt; &amp; c"]


def test_a_line_joins_networks_that_differ_in_one_value_alone():
    dataset = of_several_values()
    last = 100 * dataset.test_accuracy.isel(learning_rate=0, step=-1).mean("seed")
    figure = charts.values(dataset)
    lines = {t.name: t for t in figure.data if "lines" in t.mode}
    assert [*lines] == [
        "bn, epsilon=1.0",
        "bn, epsilon=0.1",
        "bn, momentum=0.9",
        "bn, momentum=0.5",
    ]
    one = lines["bn, epsilon=1.0"]
    assert (one.xaxis, list(one.x)) == ("x", [0.5, 0.9])
    np.testing.assert_allclose(one.y, last.sel(norm=["c", "a"]), rtol=1e-5)
    other = lines["bn, momentum=0.9"]
    assert (other.xaxis, list(other.x)) == ("x2", [0.1, 1.0])
    np.testing.assert_allclose(other.y, last.sel(norm=["b", "a"]), rtol=1e-5)
    assert (figure.layout.xaxis.title.text, figure.layout.xaxis2.title.text) == (
        "momentum",
        "epsilon",
    )


def test_each_layer_is_drawn_in_its_own_panel():
    figure = charts.CHARTS["gradient_noise"](runs())
    for norm, factor in (("none", 1), ("batch norm", 2)):
        panels = lines(figure, norm)
        assert [line.yaxis for line in panels] == ["y", "y2", "y3"]
        assert [float(line.y[0]) for line in panels] == [3 * factor * (1 + i) for i in range(3)]


def test_diverged_runs_are_crosses_that_say_when():
    dataset = sweep()
    lost = {"norm": "none", "learning_rate": 1.0, "seed": 3}
    dataset.test_accuracy.loc[{**lost, "step": slice(200, None)}] = np.nan
    dataset.diverged_at.loc[lost] = 200
    figure = charts.learning_rate(dataset)
    (cross,) = (t for t in figure.data if t.marker.symbol == "x-thin" and len(t.x))
    assert cross.name == "none"
    assert list(cross.text) == ["1 of 5"]
    assert list(cross.hovertext) == ["rate 1, loss not finite: seed 3 at step 200"]
    assert cross.y[0] < 0  # in the strip below all accuracies


def test_who_never_arrives_is_counted():
    figure = charts.steps(runs())
    none, batch_norm = (t for t in figure.data if t.marker.symbol == "x-thin")
    assert list(none.hovertext) == ["5 of 5 seeds never arrive"]
    assert list(none.text) == ["5/5"]
    assert float(none.x[0]) == pytest.approx(2 - 0.125)  # the highest target
    assert len(batch_norm.x) == 0


def test_the_slider_holds_every_distribution():
    dataset = sweep()
    frames = distribution.frames(runs(dataset))
    assert frames["steps"] == dataset.step.values.tolist()
    assert frames["shape"] == [41, 4, BINS]  # two hidden layers, two networks
    heights = np.frombuffer(base64.b64decode(frames["bytes"]), np.uint8).reshape(frames["shape"])
    at = np.arange(41)[:, None] + np.array([0, 1, 1, 2])  # a layer's networks side by side
    np.testing.assert_array_equal(heights.argmax(-1), at % BINS)
    assert set(np.unique(heights)) == {0, distribution.PEAK}


def test_curves_of_the_slider_are_in_the_order_of_its_frames():
    figure = distribution.distribution(runs(), "sigmoid")
    assert [(t.name, t.yaxis) for t in figure.data[:4]] == [
        ("none", "y"),
        ("batch norm", "y"),
        ("none", "y2"),
        ("batch norm", "y2"),
    ]
    assert [int(np.argmax(t.y)) for t in figure.data[:4]] == [40 % 32, 41 % 32, 41 % 32, 42 % 32]


def test_the_slope_is_that_of_the_activation():
    figure = distribution.distribution(runs(), "tanh")
    slope = figure.data[-1]
    assert slope.name == "slope of the tanh"
    expected = distribution.PEAK / np.cosh(np.asarray(slope.x)) ** 2
    np.testing.assert_allclose(slope.y, expected, atol=0.05 * distribution.PEAK)


def test_density_is_mass_over_width():
    """A bin twice as wide with the same mass is half as high."""
    dataset = sweep()
    dataset["activation_histogram"][:] = 1 / BINS
    heights = distribution._heights(dataset.isel(learning_rate=0))
    width = np.diff(np.append(dataset.bin.values, -dataset.bin.values[0]))
    expected = distribution.PEAK * width.min() / width
    np.testing.assert_allclose(heights[7, 1, 1], expected, atol=0.5)
