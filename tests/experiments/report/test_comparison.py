"""Studies side by side: every network once, under its study's name, with its study's numbers."""

import numpy as np
import pytest
from synthetic import keep, learning, study

from experiments.report.comparison import accuracy, comparison_table, gain, write_comparison


@pytest.fixture
def studies(tmp_path):
    small = study(np.array([[learning(0.8, 9, seeds=3)]]), norms=["plain"], rates=[0.5], every=50)
    pair = study(np.array([[learning(0.9, 6)] * 2, [learning(0.97, 20)] * 2]))
    return [keep(pair, tmp_path / "one"), keep(small, tmp_path / "two")]


def test_a_page_of_two_studies(studies, tmp_path):
    page = write_comparison(studies, tmp_path / "comparison.html").read_text(encoding="utf-8")
    for text in ("2 studies compared", "plain", "batch norm", "(3 seeds)", "(5 seeds)"):
        assert text in page
    assert "default-src 'none'" in page


def test_a_row_for_each_network_of_each_study():
    small = study(np.array([[learning(0.8, 9, spread=0)]]), norms=["plain"], rates=[0.5])
    pair = study(np.array([[learning(0.9, 6, spread=0)] * 2, [learning(0.97, 20, spread=0)] * 2]))
    header, rows = comparison_table({"b": pair, "a": small})
    assert header[:4] == ["study", "network", "best learning rate", "final test accuracy (%)"]
    assert [row[:3] for row in rows] == [
        ["b", "none", "0.1"],
        ["b", "batch norm", "0.1"],
        ["a", "plain", "0.5"],
    ]
    assert rows[2][3].startswith("80.0 ")


def test_curves_of_different_lengths_share_an_axis():
    short, long = (study(np.array([[learning(0.9, 6)]]), norms=["n"], rates=[1.0], every=e)
                   for e in (10, 50))  # fmt: skip
    figure = accuracy({"long": long, "short": short})
    named = [t for t in figure.data if t.showlegend]
    assert [t.name for t in named] == ["long: n", "short: n"]
    assert len({t.line.color for t in named}) == 2
    assert figure.layout.xaxis.range[1] > 2000


def test_names_that_clash_become_paths(tmp_path):
    dataset = study(np.array([[learning(0.9, 6)]]), norms=["n"], rates=[1.0])
    folders = [keep(dataset, tmp_path / name / "digits") for name in ("x", "y")]
    page = write_comparison(folders, tmp_path / "c.html").read_text(encoding="utf-8")
    assert all(f"<dt>{one}</dt>" in page for one in folders)


def test_a_folder_whose_name_is_no_text(tmp_path):
    dataset = study(np.array([[learning(0.9, 6)]]), norms=["n"], rates=[1.0])
    folders = [keep(dataset, tmp_path / name) for name in ("a\udcff b", "\x1b")]
    page = write_comparison(folders, tmp_path / "c.html").read_text(encoding="utf-8")
    assert "a\\udcff b" in page
    assert rf"'{tmp_path}/a\udcff b'" in page.replace("&#39;", "'")
    assert "\x1b" not in page


@pytest.mark.parametrize("twice", [1, 2])
def test_one_study_is_not_compared_with_itself(studies, tmp_path, twice):
    with pytest.raises(ValueError, match="at least two different folders, got .*one"):
        write_comparison(studies[:1] * twice, tmp_path / "comparison.html")


def test_a_folder_without_a_study_is_named(studies, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_comparison([*studies, tmp_path / "nowhere"], tmp_path / "comparison.html")


def test_the_map_of_gains():
    low, high = learning(0.5, 9, spread=0), learning(0.9, 9, spread=0)
    lost = high * np.nan
    dataset = study(np.array([[low, low], [high, lost]]), rates=[0.1, 1.0])
    other = study(np.array([[high], [low]]), rates=[1.0])
    (drawn,) = gain({"a": dataset, "b": other}).data
    assert (drawn.x, drawn.y) == (("0.1", "1", "best"), ("a", "b"))
    # A diverged network guesses: 10 %; its best rate is then the other.
    np.testing.assert_allclose(drawn.z, [[40, -40, 40], [np.nan, -40, -40]], atol=0.01)
    assert drawn.zmin == -drawn.zmax
    # The page counts the letters of a legend's names.
    assert (drawn.showlegend, drawn.name) == (False, "")


def test_without_a_baseline_there_is_no_map(tmp_path):
    dataset = study(np.array([[learning(0.9, 6)]]), norms=["n"], rates=[1.0])
    folders = [keep(dataset, tmp_path / name) for name in ("x", "y")]
    page = write_comparison(folders, tmp_path / "c.html").read_text(encoding="utf-8")
    assert "What the norm adds" not in page
