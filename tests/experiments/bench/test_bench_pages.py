"""Numbers on the pages of the benchmarks; never how fast it was."""

import jax
import numpy as np
import pandas as pd

import jbn
from experiments.bench import accuracy, sweeps


def test_accuracy_names_the_cells_in_which_another_is_much_better():
    def note(jbn, other):
        rows = [("far", "y", "jbn", jbn, 1.0), ("far", "y", "other", other, 1.0)]
        columns = ["family", "quantity", "name", "error", "tolerance"]
        return accuracy._behind(pd.DataFrame(rows, columns=columns))[0]

    assert note(9e-7, 1e-9).endswith("none.")
    assert note(5e-6, 6e-7).endswith("none.")
    assert note(5e-6, np.nan).endswith("none.")
    assert note(5e-6, 4e-7).endswith("far, y (5.0e-06).")
    assert note(np.nan, 1.0).endswith("far, y (nan).")


def test_only_the_statistics_differ_and_only_the_good_ones_are_near():
    cases = sweeps._cases((64, 4), np.random.default_rng(0))
    away = {}
    for name, pool in cases.items():
        x, affine, stats, _ = pool[0]
        away[name] = np.abs(np.mean(x, 0) - stats.mean) / np.maximum(np.std(x, 0), 1e-6)
        assert jax.tree.structure(affine) == jax.tree.structure(jbn.init(4)[0])
    near, cold, constant = away.values()
    assert np.all(near < 1)
    assert np.all(cold > 5)
    assert constant[0] > 5
    assert np.all(constant[1:] < 1)


def test_a_slower_case_has_more_times():
    report = sweeps.measure([(4, 2)], rounds=2, seed=0)
    ordinary = report.data.query("name == @sweeps.ORDINARY")
    np.testing.assert_array_equal(ordinary["times"], 1)
    np.testing.assert_array_less(0, report.data["times_q25"])
    assert not np.any(report.data["times_q25"] > report.data["times_q75"])
    assert len(report.data) == 3 * 2 * 2  # names, clocks, modes
