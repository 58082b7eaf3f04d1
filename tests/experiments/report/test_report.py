"""The page stands alone, the figures are legible as data, and a bad folder is named."""

import ast
import html
import io
import json
import re
import shlex
import xml.etree.ElementTree as ElementTree

import chex
import numpy as np
import pytest
from rich.console import Console
from synthetic import keep, learning, of_several_values, study

from experiments.report import figures
from experiments.report.captions import CAPTIONS
from experiments.report.charts import charts_of
from experiments.report.summary import summarize
from experiments.report.write import print_table, settings, write_report
from experiments.system import checksums


def sweep():
    """Two networks, two rates; at the larger one two seeds of the baseline diverge."""
    accuracy = np.array(
        [[learning(0.93, 6), learning(0.90, 9)], [learning(0.97, 12), learning(0.98, 30)]]
    )
    accuracy[0, 1, 3:, 20:] = np.nan
    return study(accuracy, layers=3)


def write(dataset, directory):
    return write_report(keep(dataset, directory))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("study")
    write(sweep(), directory)
    return directory


def test_the_report_is_complete(folder):
    shown = charts_of(sweep())
    assert {path.stem for path in (folder / "figures").glob("*.svg")} == {*shown}
    page = (folder / "report.html").read_text(encoding="utf-8")
    for name, caption in ((name, CAPTIONS[name]) for name in shown):
        assert f'<figure id="{name}" ' in page
        assert all(f"How {m.replace('_', ' ')} was measured." in page for m in caption.measures)
    assert page.count("<figure id=") == len(shown) + 1
    assert '<figure id="distribution" ' in page
    assert "python -m experiments run configs/synthetic.py" in page
    assert "xarray.open_dataset(" in page
    assert ".to_dataframe()" in page
    assert "faster &amp; &lt;better&gt;" in page  # text is text, not markup


def test_the_page_asks_for_nothing(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    fetched = re.findall(r"""(?:src|href|action|poster|data)\s*=\s*["']([^"']*)""", page)
    assert [address for address in fetched if not address.startswith("#")] == []
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []
    assert page.replace("http://www.w3.org/2000/svg", "").count("://") == 0


def test_every_link_of_the_contents_leads_somewhere(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    places = set(re.findall(r'id="([^"]*)"', page))
    links = re.findall(r'href="#([^"]*)"', page)
    assert {*charts_of(sweep())} <= set(links) <= places


def test_the_json_holds_the_summary_and_its_words(folder):
    written = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    words = written.pop("findings")
    assert written.pop("confirmation") is None
    assert written == summarize(sweep())
    assert written["versions"] == {"jax": "0.10.2"}
    assert written["device"] == "cpu"
    assert words["shows"] in (folder / "report.html").read_text(encoding="utf-8")


def test_a_report_written_twice_is_the_same(folder, tmp_path):
    again = tmp_path / folder.name
    again.mkdir()
    write(sweep(), again)
    for path in ("report.html", "summary.json", "figures/accuracy.svg"):
        # A page names its folder as it was given, so that its commands work when pasted.
        first = (folder / path).read_bytes().replace(bytes(folder), b"FOLDER")
        assert (again / path).read_bytes().replace(bytes(again), b"FOLDER") == first


def test_a_large_study_makes_no_large_page(tmp_path, without_paper):
    """Two norms, ten rates, ten seeds, 301 evaluations: some are left out, and it says so."""
    accuracy = np.array([[learning(0.9, 6, points=301, seeds=10)] * 10] * 2)
    rates = np.geomspace(0.01, 10, 10)
    dataset, rng = study(accuracy, rates=rates, layers=5), np.random.default_rng(0)
    for variable in dataset.data_vars.values():
        if variable.dtype == np.float32:  # or equal arrays would be kept once
            variable.values *= rng.uniform(0.99, 1.01, variable.shape).astype(np.float32)
    page = without_paper(dataset, tmp_path)
    assert page.stat().st_size < 2e6
    text = page.read_text("utf-8")
    assert re.search(r"curves show every \d+ evaluations", text)
    drawn = json.loads(re.search(r'id="study">(.*?)</script>', text, re.S)[1])
    steps = drawn["arrays"][drawn["steps"]]["values"]
    assert (steps[0], steps[-1]) == (0, 3000)
    # Each curve is over the steps that are left.
    marks = drawn["figures"]["accuracy"][0]["panels"][0]["marks"]
    curve = next(mark for mark in marks if mark["kind"] == "curve")
    assert drawn["arrays"][curve["runs"]]["shape"] == [10, len(steps)]


def shown_in(name, norm="batch norm"):
    """A study that the figure `name` has something of, with a network of this norm."""
    if name in charts_of(sweep()):
        return sweep().assign_coords(norm=["none", norm])
    return of_several_values().assign_coords(label=("norm", ["none", *[norm] * 4]))


@pytest.mark.parametrize("name", figures.FIGURES)
def test_every_axis_is_labelled(name):
    figure = figures.FIGURES[name](shown_in(name))
    assert figure.get_suptitle()
    # Panels of a row that share their axis are labelled by the first, which stands leftmost.
    rows = {}
    for ax in figure.axes:
        rows.setdefault(round(ax.get_position().y0, 2), []).append(ax.get_ylabel())
    assert all(labels[0] for labels in rows.values())
    told_apart = [ax.get_xlabel() for ax in figure.axes]
    for ax in figure.axes:
        assert ax.get_xlabel()
        assert ax.get_title("left") or told_apart.count(ax.get_xlabel()) == 1


@pytest.mark.parametrize("name", figures.FIGURES)
def test_nothing_is_clipped(name):
    figure = figures.FIGURES[name](shown_in(name, "batch norm with a long label [group of 8]"))
    figure.draw_without_rendering()
    page, inside = figure.bbox, figure.get_tightbbox().transformed(figure.dpi_scale_trans)
    assert inside.x0 >= page.x0 - 1
    assert inside.x1 <= page.x1 + 1
    assert inside.y0 >= page.y0 - 1
    assert inside.y1 <= page.y1 + 1


def test_norms_differ_in_more_than_colour():
    drawn = figures.FIGURES["accuracy"](sweep()).axes[0].lines
    lines = [line for line in drawn if len(line.get_xdata()) == 41]
    assert len({line.get_color() for line in lines}) == 2
    assert len({line.get_linestyle() for line in lines}) == 2
    assert len({str(line.get_marker()) for line in lines}) == 2


def test_the_line_is_the_mean_of_the_runs_that_did_not_diverge():
    dataset = sweep()
    dataset.test_accuracy.loc[{"norm": "none", "learning_rate": 0.1, "seed": 0, "step": 400}] = (
        np.nan
    )
    dataset.diverged_at.loc[{"norm": "none", "learning_rate": 0.1, "seed": 0}] = 400
    drawn = figures.FIGURES["accuracy"](dataset).axes[0].lines
    line = next(line for line in drawn if len(line.get_xdata()) == dataset.step.size)
    kept = dataset.test_accuracy.sel(norm="none", learning_rate=0.1, seed=slice(1, None))
    chex.assert_trees_all_close(
        np.asarray(line.get_ydata()), 100 * kept.mean("seed").values, rtol=1e-6
    )


def test_diverged_runs_are_marked_and_counted():
    ax = figures.FIGURES["learning_rate"](sweep()).axes[0]
    assert [text.get_text() for text in ax.texts] == ["2 of 5"]
    (crosses,) = (line for line in ax.lines if line.get_marker() == "x")
    assert list(crosses.get_ydata()) == [10, 10]  # they count as chance


@pytest.mark.parametrize(
    ("accuracy", "layers"),
    [
        (np.array([[learning(0.9, 5)[:1]]]), 1),
        (np.array([[learning(0.9, 5)[:, :1]], [learning(0.9, 5)[:, :1]]]), 2),
        (np.full((2, 1, 2, 5), np.nan), 2),
        (np.array([[learning(0.9, 2 + i, seeds=2)] for i in range(7)]), 5),
    ],
    ids=["one of everything", "no training", "all diverged", "many of everything"],
)
def test_any_shape_of_study_is_reported(accuracy, layers, tmp_path):
    norms = [f"norm {i} [x]" for i in range(len(accuracy))]
    dataset = study(accuracy, norms=norms, rates=[0.1], layers=layers)
    page = write(dataset, tmp_path).read_text(encoding="utf-8")
    ElementTree.parse(tmp_path / "figures" / "accuracy.svg")
    assert all(norm in page for norm in norms)
    text = io.StringIO()
    print_table(summarize(dataset), Console(file=text, width=200))
    assert all(norm in text.getvalue() for norm in norms)


def test_the_terminal_says_what_the_page_says():
    text = io.StringIO()
    print_table(summarize(sweep()), Console(file=text, width=80))
    said = text.getvalue()
    assert "never" in said
    assert "What" not in said
    assert "at least" in said
    assert max(map(len, said.splitlines())) <= 80


def test_arms_are_named_once_on_paper():
    figure = figures.FIGURES["budget"](of_several_values())
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["none", "bn"]
    assert len(figure.axes[0].texts) == 0


def test_what_several_values_lead_to_is_drawn(tmp_path, without_paper):
    page = without_paper(of_several_values(), tmp_path / "several").read_text("utf-8")
    assert '<figure id="values" ' in page
    page = without_paper(sweep(), tmp_path / "one").read_text("utf-8")
    assert '<figure id="values" ' not in page


def test_what_is_to_be_pasted_is_quoted(tmp_path, without_paper):
    page = without_paper(sweep(), tmp_path / 'batch 16 "a"').read_text("utf-8")
    said = html.unescape(page)
    (command,) = re.findall(r"^python -m experiments report (.*)</pre>", said, re.M)
    assert shlex.split(command) == [f'{tmp_path}/batch 16 "a"']
    (opened, *_) = re.findall(r"xarray\.open_dataset\((.*)\)$", said, re.M)
    assert ast.literal_eval(opened) == f'{tmp_path}/batch 16 "a"/metrics.nc'


def test_settings_are_words():
    nested = {"norms": {"none": None}, "data_parallel": False, "learning_rates": [0.1, 3.0]}
    assert settings(nested) == {
        "norms.none": "none",
        "data_parallel": "no",
        "learning_rates": "0.1, 3.0",
    }


def test_a_study_without_distributions_says_so(tmp_path, without_paper):
    bare = sweep().drop_vars(["activation_histogram", "bin"])
    page = without_paper(bare, tmp_path).read_text("utf-8")
    assert '<figure id="distribution" ' not in page
    assert "There is no slider" in page


def test_a_folder_without_a_study_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.nc is not there.*experiments run"):
        write_report(tmp_path)


def test_a_file_that_is_no_study_is_named(tmp_path):
    (tmp_path / "metrics.nc").write_bytes(b"not netCDF")
    checksums.add(tmp_path, ["metrics.nc"])
    with pytest.raises(ValueError, match="metrics.nc: is no study's result"):
        write_report(tmp_path)
    with pytest.raises(ValueError, match="lacks gradient_noise"):
        write(sweep().drop_vars("gradient_noise"), tmp_path)


def test_an_unfinished_study_is_not_called_diverged(tmp_path):
    dataset = sweep()
    dataset.test_accuracy.loc[{"step": 400}] = np.nan
    with pytest.raises(ValueError, match="unfinished"):
        write(dataset, tmp_path)
