"""Studies side by side: every network once, under its study's name, with its study's numbers."""

import json
import re
from urllib.parse import unquote

import numpy as np
import pytest
from synthetic import keep, learning, study

from experiments.report.comparison import (
    accuracy,
    comparison_table,
    differences,
    gains,
    write_comparison,
)


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
    (panel,) = accuracy({"long": long, "short": short}).panels
    assert panel.y.label == "test accuracy (%)"
    curves = [mark for mark in panel.marks if mark.kind == "curve"]
    assert [(curve.network, curve.x[-1]) for curve in curves] == [(0, 2000), (1, 400)]


def test_a_norm_keeps_its_colour_and_studies_differ_in_dashes(studies, tmp_path):
    pair = study(np.array([[learning(0.9, 6)] * 2, [learning(0.97, 20)] * 2]))
    other = pair.assign_coords(norm=["batch norm", "layer norm"])
    folders = [*studies[:1], keep(other, tmp_path / "three")]
    page = write_comparison(folders, tmp_path / "c.html").read_text(encoding="utf-8")
    drawn = json.loads(re.search(r'id="study">(.*?)</script>', page, re.S)[1])["networks"]
    colour = {network["name"]: network["colour"] for network in drawn}
    assert colour["one: batch norm"] == colour["three: batch norm"]
    assert len(set(colour.values())) == 3
    assert len({network["dash"] for network in drawn}) == 4


def test_studies_link_to_their_reports_and_say_how_they_differ(studies, tmp_path):
    spaced = tmp_path / "batch 16%"
    studies[0].rename(spaced)
    (spaced / "report.html").write_text("<p>here</p>")
    (tmp_path / "pages").mkdir()
    out = tmp_path / "pages" / "c.html"
    page = write_comparison([spaced, studies[1]], out).read_text(encoding="utf-8")
    (address,) = re.findall(r'<dt><a href="([^"]*)">', page)
    assert (out.parent / unquote(address)).resolve() == spaced.resolve() / "report.html"


def test_only_settings_that_differ_are_listed():
    one, two = (study(np.array([[learning(0.9, 6)]]), norms=["n"], rates=[1.0]) for _ in range(2))
    two.attrs["config"] = json.dumps(
        {**json.loads(one.attrs["config"]), "batch_size": 7, "x": {"y": 1}}
    )
    assert differences({"a": one, "b": two}) == (
        ["setting", "a", "b"],
        [["batch_size", "60", "7"], ["x.y", "–", "1"]],
    )


def test_names_that_clash_become_paths(tmp_path):
    dataset = study(np.array([[learning(0.9, 6)]]), norms=["n"], rates=[1.0])
    folders = [keep(dataset, tmp_path / name / "digits") for name in ("x", "y")]
    page = write_comparison(folders, tmp_path / "c.html").read_text(encoding="utf-8")
    assert all(f"<dt>{one}</dt>" in page for one in folders)  # and no link without a report


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
    header, rows = gains({"a": dataset, "b": other})
    assert header == ["0.1", "1", "best"]
    # A diverged network guesses: 10 %; its best rate is then the other.
    assert [label for label, _ in rows] == ["a", "b"]
    np.testing.assert_allclose(rows[0][1], [40, -40, 40], atol=0.01)
    assert rows[1][1][0] is None
    np.testing.assert_allclose(rows[1][1][1:], [-40, -40], atol=0.01)


def test_without_a_baseline_there_is_no_map(tmp_path):
    dataset = study(np.array([[learning(0.9, 6)]]), norms=["n"], rates=[1.0])
    folders = [keep(dataset, tmp_path / name) for name in ("x", "y")]
    page = write_comparison(folders, tmp_path / "c.html").read_text(encoding="utf-8")
    assert "What the norm adds" not in page
