"""The walkthrough computes batch norm's steps, prints them, and shows them as one table."""

import io
import re

import chex
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from experiments.commands.walkthrough import main
from experiments.walkthrough import MEETING, walk
from experiments.walkthrough.show import features
from jbn import batch_norm, init

COLUMN = pd.DataFrame({"x": [1.0, 5.0, 9.0]})


@pytest.fixture
def printed(capsys):
    def run(*arguments: object) -> str:
        main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(capsys):
    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return run


@pytest.fixture
def csv(tmp_path):
    def write(text: str):
        path = tmp_path / "table.csv"
        path.write_text(text)
        return path

    return write


def section(text: str, begin: str, end: str) -> str:
    return text[text.index(begin) : text.index(end)]


def numbers(text: str) -> list[list[str]]:
    """The rows of numbers to four places, as printed."""
    rows = [re.findall(r"-?\d+\.\d{4}(?:e[-+]\d+)?", line) for line in text.splitlines()]
    return [row for row in rows if row]


def test_the_meeting_has_loud_and_quiet_features_and_a_boss(printed):
    text = printed()
    prose = " ".join(text.split())
    assert 'Here "words" shouts: it swings 152.8 times as far as "minutes".' in prose
    assert numbers(section(text, "1. Mean", "2. Spread")) == [
        ["5.0000", "700.0000", "4.0000", "6.0000"]
    ]
    assert numbers(section(text, "2. Spread", "3. Equal")) == [
        ["6.0000", "140000.0000", "12.6667", "6.0000"],
        ["2.4495", "374.1657", "3.5590", "2.4495"],
    ]
    voices = [
        ["1.2247", "1.3363", "-0.8429", "-1.2247"],
        ["0.0000", "-0.2673", "-0.5620", "1.2247"],
        ["-1.2247", "-1.0690", "1.4049", "0.0000"],
    ]
    assert numbers(section(text, "3. Equal", "4. The")) == voices
    boss = numbers(section(text, "4. The", "N or N-1"))
    assert boss[:2] == [
        ["1.0000"] * 2 + ["2.0000", "1.0000"],
        ["0.0000"] * 2 + ["1.0000", "0.0000"],
    ]
    assert [row[2] for row in boss[2:]] == ["-0.6859", "-0.1239", "3.8098"]
    assert numbers(section(text, "N or N-1", "Divided"))[1] == [
        "9.0000",
        "210000.0000",
        "19.0000",
        "9.0000",
    ]
    assert "text divides by N: variance 10.6667, output -1.2247, 0.0000, 1.2247" in prose
    assert "divides by N-1 unless told otherwise: variance 16.0000, output -1.0000" in prose
    assert "1.5000 times as large, and x_hat 0.8165 times" in prose


def test_steps_to_more_places_than_shown():
    steps = walk(COLUMN, [3.0], [0.5], epsilon=16 / 3)
    # Variance plus epsilon is 16, so each example is 4/4 away from the mean.
    chex.assert_trees_all_close(
        steps.normalised["x"].to_numpy(), np.array([-1.0, 0, 1]), rtol=1e-14
    )
    chex.assert_trees_all_close(steps.y["x"].to_numpy(), np.array([-2.5, 0.5, 3.5]), rtol=1e-14)
    assert steps.sigma["x"] == pytest.approx(np.sqrt(32 / 3), rel=1e-14)
    assert steps.sample_variance["x"] == pytest.approx(16, rel=1e-14)
    over = 4 / np.sqrt(64 / 3)
    expected = np.array([0.5 - 3 * over, 0.5, 0.5 + 3 * over])
    chex.assert_trees_all_close(steps.sample_y["x"].to_numpy(), expected, rtol=1e-14)


def test_the_steps_are_those_of_batch_norm():
    y, _ = batch_norm(MEETING.to_numpy(np.float32), *init(4))
    chex.assert_trees_all_close(walk().y.to_numpy(np.float32), np.asarray(y), rtol=1e-5)


def test_four_places_are_right_far_from_zero():
    steps = walk(pd.DataFrame({"x": [100000001.25, 100000002.25, 100000003.25]}))
    assert steps.mean["x"] == pytest.approx(100000002.25, rel=1e-15)
    assert steps.variance["x"] == pytest.approx(2 / 3, rel=1e-12)


def test_a_constant_column_is_beta():
    steps = walk(pd.DataFrame({"a": [7, 7], "b": [1, 2]}), [5.0], [0.25])
    assert steps.y["a"].tolist() == [0.25, 0.25]


def test_one_table_in_a_notebook(csv):
    steps = walk(csv("name;a;a\nAnn;1;0\n<Ben>;5;2\n"))  # names twice, and markup
    frame = steps.frame()
    assert list(frame.columns) == ["a", "a"]
    assert list(frame.index.levels[0].sort_values())[:3] == ["beta", "gamma", "mean"]
    assert frame.loc[("x_hat", "Ann")].tolist() == pytest.approx([-1, -1], abs=1e-5)
    assert frame.loc["sigma"].to_numpy().ravel().tolist() == [2, 1]
    page = steps._repr_html_()
    assert page.count("<table") == 1
    assert "2.0000" in page
    assert "&lt;Ben&gt;" in page


def test_a_table_of_words_is_refused():
    with pytest.raises(ValueError, match="needs numbers in every column"):
        walk(pd.DataFrame({"a": ["Ann", "Ben"]}))
    with pytest.raises(ValueError, match="column a: its numbers are not finite"):
        walk(pd.DataFrame({"a": [1.0, np.nan]}))


def test_a_table_of_ones_own(printed, csv):
    text = printed(csv("name;minutes\n[red]Ann;8\nBen;2\n"), "--gamma", "2", "--beta", "-1")
    assert "2 examples (rows), 1 features (columns)" in text
    assert "[red]Ann" in text
    assert numbers(section(text, "4. The", "N or N-1")) == [
        ["2.0000"],
        ["-1.0000"],
        ["1.0000"],
        ["-3.0000"],
    ]


def test_nothing_is_printed_twice_where_gamma_is_1_and_beta_0(printed, csv):
    text = section(printed("--csv", csv("1,3\n5,9\n")), "4. The", "N or N-1")
    assert len(numbers(text)) == 2
    assert "Here y is x_hat: try --gamma 2 --beta 1." in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gamma", 1, 2], "gamma has 2 numbers and the table has 4 columns"),
        (["--beta", 1, 2, 3, 4, 5], "beta has 5 numbers and the table has 4 columns"),
        (["--gamma", "nan"], "gamma is nan, needs a finite number"),
        (["--beta", "inf"], "beta is inf, needs a finite number"),
        (["--epsilon", 0], "epsilon is 0.0, needs a positive number"),
        (["--epsilon", "nan"], "epsilon is nan, needs a positive number"),
        (["none.csv"], "cannot read none.csv: No such file or directory"),
        (["--page", "--gamma", 2], "--gamma, --beta and --epsilon are set in the page itself"),
    ],
)
def test_bad_options_are_one_line(refused, options, message):
    assert refused(*options).startswith(message)


def test_tables_without_a_variance_are_one_line(refused, csv):
    assert "1 row(s) of 2 column(s); batch norm needs two" in refused(csv("1,2\n"))
    line = refused(csv("a,b\n1,1e300\n2,3e300\n"))
    assert line == "column b: its numbers are not finite, or too large to square"


def test_piped_output_is_plain(printed):
    text = printed()
    assert text.isascii()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("terminal", [True, False])
def test_numbers_are_never_cut(terminal):
    x = np.arange(30.0).reshape(2, 15) * 1000.5
    table = pd.DataFrame(x, ["row 1", "row 2"], [f"measurement_{i}" for i in range(15)])
    for width in range(24, 100, 5):
        file = io.StringIO()
        console = Console(width=width, force_terminal=terminal, color_system=None, file=file)
        console.print(*features(console, table))
        lines = file.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        shown = [re.findall(r"\d+\.\d{4}", line) for line in lines if "row" in line]
        assert sorted(float(cell) for row in shown for cell in row) == sorted(x.ravel())


def test_long_and_wide_tables_keep_beginning_and_end(printed, csv):
    rows = "\n".join(",".join(str(i * j) for j in range(1, 301)) for i in range(51, 101))
    text = printed(csv(rows))
    shown = section(text, "Of 50 rows and 300 columns", "1. Mean")
    labels = dict.fromkeys(re.findall(r"^row (\d+) ", shown, re.M))
    assert [*map(int, labels)] == [*range(1, 12), 50]
    assert re.findall(r"x\d+", shown) == ["x1", "x2", "x3", "x4", "x5", "x300"]
    assert numbers(shown)[-1][-1] == "30000.0000"
    # The statistics are those of all fifty rows.
    assert numbers(section(text, "1. Mean", "2. Spread"))[0][0] == "75.5000"
    assert len(text.splitlines()) < 110


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        ([10.66666, -0.0], ["10.6667", "0.0000"]),
        ([1.0, -3e-7], ["1.0000", "0.0000"]),
        ([2e-17, 0.0], ["0.0000", "0.0000"]),
        ([2.5e-7, 0.0], ["2.5000e-07", "0.0000e+00"]),
        ([3e12, 5e12], ["3.0000e+12", "5.0000e+12"]),
    ],
    ids=["places", "rounding in a column", "rounding alone", "small", "large"],
)
def test_places_fit_the_column(column, shown, capsys):
    console = Console(color_system=None)
    console.print(*features(console, pd.DataFrame({"a": column}, ["row", "row"])))
    lines = capsys.readouterr().out.split("row")[1:]
    assert [line.strip() for line in lines] == shown
