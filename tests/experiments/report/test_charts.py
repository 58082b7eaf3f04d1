"""The figures as data hold the numbers of the dataset, and the slider its distributions."""

import numpy as np
import pytest
from synthetic import learning, of_several_values, study

from experiments.report import charts, distribution
from experiments.report.looks import PATTERNS, colours_of, dashes_of, networks
from experiments.report.runs import choices
from experiments.report.summary import summarize
from experiments.study.measure import BINS


def sweep(**shape):
    accuracy = [[learning(0.93, 6), learning(0.90, 9)], [learning(0.97, 12), learning(0.98, 30)]]
    return study(np.array(accuracy), **{"layers": 3, **shape})


def runs(dataset=None):
    return choices(sweep() if dataset is None else dataset)[-1][1]


def marks(panel, kind, network=None):
    return [m for m in panel.marks if m.kind == kind and (network is None or m.network == network)]


def test_a_curve_holds_every_run():
    chosen = runs()
    (panel,) = charts.accuracy(chosen).panels
    for i, norm in enumerate(("none", "batch norm")):
        (curve,) = marks(panel, "curve", i)
        expected = 100 * chosen.test_accuracy.sel(norm=norm).transpose("seed", "step")
        np.testing.assert_allclose(curve.runs, expected, rtol=1e-6)
        np.testing.assert_array_equal(curve.x, chosen.step)


@pytest.mark.parametrize("name", charts.charts_of(sweep()))
def test_every_network_is_in_every_figure(name):
    figure = charts.CHARTS[name](sweep() if name in charts.OF_ALL_RATES else runs())
    shown = {m.network for panel in figure.panels for m in marks(panel, "curve")}
    assert shown == {0, 1}


def test_targets_and_the_mean_arrival_are_marked():
    dataset = sweep()
    dataset.test_accuracy[:] = 0.1
    for seed, step in enumerate((10, 20, 20, 40, 80)):
        dataset.test_accuracy.loc[{"norm": "none", "seed": seed, "step": slice(step, None)}] = 0.85
    (panel,) = charts.accuracy(dataset.isel(learning_rate=0)).panels
    assert [m.y for m in marks(panel, "level")] == [80, 90, 95]
    (arrival,) = marks(panel, "marks")  # nobody reaches 90 %, and the other network nothing
    assert (arrival.network, arrival.shape, list(arrival.y)) == (0, "arrival", [80])
    assert arrival.x[0] == pytest.approx((10 * 20 * 20 * 40 * 80) ** 0.2)


def test_steps_are_counted_to_every_target():
    dataset = sweep()
    dataset.test_accuracy[:] = 0.1
    dataset.test_accuracy.loc[{"norm": "none", "step": slice(70, None)}] = 0.85
    dataset.test_accuracy.loc[{"norm": "none", "step": slice(200, None), "seed": 1}] = 0.96
    (panel,) = charts.steps(dataset.isel(learning_rate=0)).panels
    none, batch_norm = marks(panel, "curve")
    at = {target: i for i, target in enumerate(none.x.tolist())}
    assert none.every
    assert none.runs[:, at[80]].tolist() == [70] * 5
    assert none.runs[1, at[95]] == 200
    assert np.isnan(none.runs[[0, 2, 3, 4], at[95]]).all()
    assert np.isnan(batch_norm.runs).all()
    (first,) = marks(panel, "level")
    assert first.y == 10


def test_networks_of_one_norm_share_a_colour_and_differ_in_dashes():
    shown = networks(of_several_values())
    assert [(network.label, network.colour) for network in shown] == [("none", 0), *[("bn", 1)] * 4]
    assert len({network.dash for network in shown}) == 5
    assert shown[3].values == {"momentum": 0.5, "epsilon": 1.0}
    assert [network.arm for network in shown] == [True, False, False, False, True]
    assert [network.best for network in shown] == [0] * 5
    np.testing.assert_allclose(shown[0].finals, [0.5, 0.4], atol=0.01)


def test_a_norm_has_one_colour_in_every_study():
    assert colours_of(["batch norm", "mine", "no norm"]) == {
        "no norm": 0,
        "batch norm": 1,
        "mine": 2,
    }
    assert colours_of(["none", "x", "batch norm", "x"]) == {"none": 0, "batch norm": 1, "x": 2}


def test_networks_of_one_norm_differ_in_dashes_as_long_as_there_are_some():
    dashes = dashes_of(["a", "a", "b", "b"] * 2)
    for own in (dashes[:2] + dashes[4:6], dashes[2:4] + dashes[6:]):
        assert len({dash % PATTERNS for dash in own}) == 4
    assert dashes_of(["a"] * 6)[4:] == [4, 5]


def test_seconds_are_there_if_they_were_measured():
    dataset = sweep()
    assert [network.seconds for network in networks(dataset)] == [None, None]
    cost = np.full((2, dataset.step.size), 0.1)
    cost[1] = 0.2
    cost[:, 0], cost[:, 1] = np.nan, 7  # not measured; and compilation
    dataset["seconds_per_step"] = ("norm", "step"), cost
    assert [network.seconds for network in networks(dataset)] == pytest.approx([0.1, 0.2])


def test_a_line_joins_networks_that_differ_in_one_value_alone():
    dataset = of_several_values()
    last = 100 * dataset.test_accuracy.isel(learning_rate=0, step=-1)
    momentum, epsilon = charts.values(dataset).panels
    assert (momentum.x.label, epsilon.x.label) == ("momentum", "epsilon")
    lines = {m.label: m for panel in (momentum, epsilon) for m in marks(panel, "curve")}
    assert [*lines] == [
        "bn, epsilon=1.0",
        "bn, epsilon=0.1",
        "bn, momentum=0.9",
        "bn, momentum=0.5",
    ]
    one = lines["bn, epsilon=1.0"]
    assert list(one.x) == [0.5, 0.9]
    np.testing.assert_allclose(one.runs.T, last.sel(norm=["c", "a"]), rtol=1e-5)
    other = lines["bn, momentum=0.9"]
    assert list(other.x) == [0.1, 1.0]
    np.testing.assert_allclose(other.runs.T, last.sel(norm=["b", "a"]), rtol=1e-5)


def test_a_budget_has_a_curve_for_each_arm():
    dataset = of_several_values()
    figure = charts.budget(dataset)
    (panel,) = figure.panels
    none, bn = marks(panel, "curve")
    # Each is drawn as its arm's best network, which is the one that the key shows first.
    assert [(m.network, m.label, m.runs.shape) for m in (none, bn)] == [
        (0, "none", (5, 2)),
        (4, "bn", (5, 8)),
    ]
    assert list(bn.x) == [*range(1, 9)]
    assert [label for _, label in panel.x.ticks] == ["1", "2", "3", "5", "8"]
    budget = summarize(dataset)["budget"]
    np.testing.assert_allclose(bn.runs.mean(0), 100 * np.array(budget["bn"]["mean"]), rtol=1e-5)
    assert figure.arms


def test_a_study_of_one_setting_has_no_budget_and_one_of_no_values_no_values():
    assert {"budget", "values"} <= charts.charts_of(of_several_values()).keys()
    assert charts.CHARTS.keys() - charts.charts_of(sweep()) == {"values"}
    alone = charts.charts_of(sweep().isel(learning_rate=[0]))
    assert charts.CHARTS.keys() - alone == {"values", "budget"}


def test_each_layer_is_drawn_in_its_own_panel():
    figure = charts.CHARTS["gradient_noise"](runs())
    assert [panel.title for panel in figure.panels] == ["hidden 1", "hidden 2", "output"]
    for i, factor in enumerate((1, 2)):
        heights = [marks(panel, "curve", i)[0].runs[0, 0] for panel in figure.panels]
        assert heights == [3 * factor * (1 + layer) for layer in range(3)]


def test_percentiles_are_named_at_their_lines():
    panels = charts.percentiles(runs()).panels
    assert [panel.network for panel in panels] == [0, 1]
    assert [m.label for m in marks(panels[1], "curve", 1)] == ["15 %", "50 %", "85 %"]


def test_failed_runs_are_crosses_that_say_when():
    dataset = sweep()
    lost = {"norm": "none", "learning_rate": 1.0, "seed": [2, 3]}
    dataset.test_accuracy.loc[{**lost, "step": slice(200, None)}] = np.nan
    dataset.diverged_at.loc[lost] = 200
    (panel,) = charts.learning_rate(dataset).panels
    (crosses,) = marks(panel, "marks")
    assert (crosses.network, crosses.shape) == (0, "cross")
    assert (crosses.x.tolist(), crosses.y.tolist()) == ([1, 1], [10, 10])  # they count as chance
    assert crosses.said[1] == "rate 1, seed 3: its loss stopped being finite at step 200"
    assert crosses.labels == ["2 of 5", ""]


def test_the_slider_holds_every_distribution():
    dataset = sweep()
    figure = distribution.distribution(runs(dataset), "")
    assert [panel.title for panel in figure.panels] == ["norm 1", "norm 2"]
    at = np.arange(41)
    for place, panel in enumerate(figure.panels):
        for network in range(2):
            (density,) = marks(panel, "density", network)
            assert density.heights.shape == (41, BINS)
            peaks = (at + place + network) % BINS
            np.testing.assert_array_equal(density.heights.argmax(-1), peaks)
            assert density.x.tolist() == dataset.step.values.tolist()


def test_areas_are_equal():
    """Whatever the shape, the area under what is drawn is one, to the rounding of a byte."""
    dataset = sweep()
    mass = np.random.default_rng(0).dirichlet(np.ones(BINS))
    dataset["activation_histogram"][:] = mass
    dataset["activation_histogram"].loc[{"norm": "none"}] = 1 / BINS
    (panel, _) = distribution.distribution(dataset.isel(learning_rate=0), "").panels
    for density in marks(panel, "density"):
        heights = density.highest * (density.heights / 255) ** 2
        areas = heights @ np.diff(density.edges)
        np.testing.assert_allclose(areas, 1, atol=0.02)


def test_the_slope_is_that_of_the_activation():
    panel, _ = distribution.distribution(runs(), "tanh").panels
    (slope,) = marks(panel, "reference")
    assert slope.label == "slope of the tanh"
    np.testing.assert_allclose(slope.y, np.cosh(slope.x) ** -2.0, atol=0.01)
    panel, _ = distribution.distribution(runs(), "relu").panels
    (slope,) = marks(panel, "reference")
    np.testing.assert_array_equal(slope.y, slope.x > 0)  # no ramp about zero
