"""The walkthrough prints the article's numbers, reads a reader's table, and names what is wrong."""

import io
import re
from pathlib import Path

import chex
import numpy as np
import pytest
import tyro
from rich.console import Console

from experiments import walkthrough

COLUMN = [1.0, 5.0, 9.0]


@pytest.fixture
def csv(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "table.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def printed(capsys, *args, **kwargs) -> str:
    walkthrough.main(*args, **kwargs)
    return capsys.readouterr().out


def section(text: str, begin: str, end: str) -> str:
    return text[text.index(begin) : text.index(end)]


def numbers(text: str) -> list[list[str]]:
    """The rows of numbers to four places, as printed."""
    rows = [re.findall(r"-?\d+\.\d{4}(?:e[-+]\d+)?", line) for line in text.splitlines()]
    return [row for row in rows if len(row) > 1]


def test_article_mean_and_variance(capsys):
    text = printed(capsys)
    assert numbers(section(text, "1. Mean", "2. Variance")) == [
        ["5.0000", "6.0000", "7.0000", "8.0000"]
    ]
    assert numbers(section(text, "2. Variance", "3. Normalised")) == [["10.6667"] * 4]


def test_article_input_normalised_and_output(capsys):
    text = printed(capsys)
    assert numbers(section(text, "The batch", "1. Mean")) == [
        ["1.0000", "2.0000", "3.0000", "4.0000"],
        ["5.0000", "6.0000", "7.0000", "8.0000"],
        ["9.0000", "10.0000", "11.0000", "12.0000"],
    ]
    three = [["-1.2247"] * 4, ["0.0000"] * 4, ["1.2247"] * 4]
    assert numbers(section(text, "3. Normalised", "4. Scaled")) == three
    affine = [["1.0000"] * 4, ["0.0000"] * 4]
    assert numbers(section(text, "4. Scaled", "What if")) == [*affine, *three]


def test_article_divided_by_n_minus_1(capsys):
    text = printed(capsys)
    assert numbers(section(text, "What if", "Batch norm divides")) == [
        ["10.6667"] * 4,
        ["16.0000"] * 4,
        *[["-1.2247"] * 4, ["0.0000"] * 4, ["1.2247"] * 4],
        *[["-1.0000"] * 4, ["0.0000"] * 4, ["1.0000"] * 4],
    ]
    prose = " ".join(text.split())
    assert "variance 1.5000 times as large" in prose
    assert "normalised numbers 0.8165 times as large" in prose
    assert "text divides by N: variance 10.6667, output -1.2247, 0.0000, 1.2247" in prose
    assert "divides by N-1 unless told otherwise: variance 16.0000, output -1.0000" in prose


def test_numbers_to_more_places_than_shown():
    batch = walkthrough.Batch(["x"], np.array([COLUMN]).T)
    steps = walkthrough.walk(batch, [3.0], [0.5], epsilon=16 / 3)
    # Variance plus epsilon is 16, so each example is 4/4 away from the mean.
    chex.assert_trees_all_close(steps.normalised[:, 0], np.array([-1.0, 0, 1]), rtol=1e-14)
    chex.assert_trees_all_close(steps.y[:, 0], np.array([-2.5, 0.5, 3.5]), rtol=1e-14)
    chex.assert_trees_all_close(steps.sample_variance, np.array([16.0]), rtol=1e-14)
    over = 4 / np.sqrt(64 / 3)
    chex.assert_trees_all_close(
        steps.sample_y[:, 0], np.array([0.5 - 3 * over, 0.5, 0.5 + 3 * over]), rtol=1e-14
    )


def test_four_places_are_right_far_from_zero(csv):
    batch = walkthrough.read_batch(csv("100000001.25\n100000002.25\n100000003.25\n"))
    steps = walkthrough.walk(batch, [1.0], [0.0])
    chex.assert_trees_all_close(steps.mean, np.array([100000002.25]), rtol=1e-15)
    chex.assert_trees_all_close(steps.variance, np.array([2 / 3]), rtol=1e-12)


def test_gamma_and_beta_per_column(capsys):
    text = printed(capsys, gamma=(1.0, 2.0, 0.0, -1.0), beta=(0.0, 1.0, 3.0, 0.0))
    assert numbers(section(text, "4. Scaled", "What if"))[2:] == [
        ["-1.2247", "-1.4495", "3.0000", "1.2247"],
        ["0.0000", "1.0000", "3.0000", "0.0000"],
        ["1.2247", "3.4495", "3.0000", "-1.2247"],
    ]
    assert "article" not in text


def test_one_gamma_and_beta_for_all_columns(capsys):
    text = printed(capsys, gamma=(2.0,), beta=(-1.0,))
    assert numbers(section(text, "4. Scaled", "What if"))[2] == ["-3.4495"] * 4


def test_constant_column_is_beta(csv):
    batch = walkthrough.read_batch(csv("7,1\n7,2\n"))
    steps = walkthrough.walk(batch, [5.0], [0.25])
    chex.assert_trees_all_equal(steps.y[:, 0], np.array([0.25, 0.25]))


@pytest.mark.parametrize(
    "text",
    [
        "height,width\n1,2\n5,6\n9,10\n",
        "1,2\n5,6\n9,10\n",
        "height,width\r\n1,2\r\n5,6\r\n9,10\r\n",
        b"\xef\xbb\xbfheight,width\n1,2\n5,6\n9,10",
        '"height"," width "\n1, 2\n\n5.0,6e0\n  9 ,10\n\n',
        b"\xef\xbb\xbf1,2\n5,6\n9,10\n",
    ],
    ids=["header", "no header", "crlf", "byte order mark", "quotes, spaces, blank", "mark, plain"],
)
def test_csv_variants(csv, text):
    batch = walkthrough.read_batch(csv(text))
    chex.assert_trees_all_equal(batch.x, np.array([[1.0, 2], [5, 6], [9, 10]]))
    has_header = b"height" in (text if isinstance(text, bytes) else text.encode())
    assert batch.features == (["height", "width"] if has_header else ["x1", "x2"])


def test_csv_is_what_gets_printed(csv, capsys):
    text = printed(capsys, csv("height,width\n0,10\n2,30\n"))
    assert "height" in text
    assert "2 examples (rows), 2 features (columns)" in text
    assert numbers(section(text, "1. Mean", "2. Variance")) == [["1.0000", "20.0000"]]
    assert numbers(section(text, "2. Variance", "3. Normalised")) == [["1.0000", "100.0000"]]
    assert "article" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,x\n", r"row 3, column 2 \(b\): 'x' is not a finite number"),
        ("1,2\n\n3,x\n", r"row 3, column 2 \(x2\): 'x' is not a finite number"),
        ("1,x\n3,4\n", r"row 1, column 2 \(x2\): 'x' is not a finite number"),
        ("a,b\n1,2\n,4\n", r"row 3, column 1 \(a\): the cell is empty"),
        ("a,b\n1,2\n3,nan\n", r"row 3, column 2 \(b\): 'nan' is not a finite number"),
        ("a,b\n1,2\n3,inf\n", r"row 3, column 2 \(b\): 'inf' is not a finite number"),
        ("a;b\n1;2\n3;4\n", r"row 2, column 1 \(a;b\): '1;2' .* commas between cells"),
        ("a,b\n1,2\n3\n", r"row 3 has 1 cells, row 1 has 2"),
        ("a,b\n1,2\n3,4,5\n", r"row 3 has 3 cells, row 1 has 2"),
        ("1,2\n3,4,\n", r"row 2 has 3 cells, row 1 has 2"),
        ("a,b\n", r"no row of numbers, only row 1: 'a, b'"),
        ("", r"is empty"),
        ("\n \n", r"is empty"),
        (b"\xff\xfe1\x00,\x002\x00", r"not text in UTF-8"),
    ],
)
def test_bad_csv_is_named(csv, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        walkthrough.main(csv(text))
    assert "\n" not in str(caught.value)
    assert "table.csv" in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*none\.csv: No such file"):
        walkthrough.main(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"cannot read .*: Is a directory"):
        walkthrough.main(tmp_path)


def test_variance_beyond_floating_point_is_named(csv):
    with pytest.raises(ValueError, match="column b: its numbers are too large to square"):
        walkthrough.main(csv("a,b\n1,1e300\n2,3e300\n"))


@pytest.mark.parametrize("text", ["1,2\n", "a,b\n1,2\n"])
def test_single_row_has_no_variance(csv, text):
    with pytest.raises(ValueError, match="1 row, and the variance of one example is always zero"):
        walkthrough.main(csv(text))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": (1.0, 2.0)}, "gamma has 2 numbers and the table has 4 columns"),
        ({"gamma": ()}, "gamma has 0 numbers and the table has 4 columns"),
        ({"beta": (1.0, 2.0, 3.0, 4.0, 5.0)}, "beta has 5 numbers and the table has 4 columns"),
        ({"gamma": (float("nan"),)}, "gamma is nan, needs a finite number"),
        ({"beta": (float("inf"),)}, "beta is inf, needs a finite number"),
        ({"epsilon": 0.0}, "epsilon is 0.0, needs a positive number"),
        ({"epsilon": -1.0}, "epsilon is -1.0, needs a positive number"),
        ({"epsilon": float("nan")}, "epsilon is nan, needs a positive number"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        walkthrough.main(**options)


def test_as_a_command(csv, capsys):
    path = csv("1,2\n3,4\n")
    args = ["--csv", str(path), "--gamma", "2", "3", "--beta", "-1", "--epsilon", "1e-9"]
    tyro.cli(walkthrough.main, args=args)
    text = capsys.readouterr().out
    assert numbers(section(text, "4. Scaled", "What if"))[2:] == [
        ["-3.0000", "-4.0000"],
        ["1.0000", "2.0000"],
    ]


def test_piped_output_is_plain(capsys):
    text = printed(capsys)
    assert text.isascii()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("terminal", [True, False])
def test_numbers_are_never_cut(terminal):
    x = np.arange(30.0).reshape(2, 15) * 1000.5
    features = [f"measurement_{i}" for i in range(15)]
    for width in range(24, 100, 5):
        file = io.StringIO()
        console = Console(width=width, force_terminal=terminal, color_system=None, file=file)
        walkthrough.print_features(console, features, [("row 1", x[0]), ("row 2", x[1])])
        lines = file.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        shown = [re.findall(r"\d+\.\d{4}", line) for line in lines if "row" in line]
        assert sorted(float(cell) for row in shown for cell in row) == sorted(x.ravel())


def test_long_table_keeps_beginning_and_last_row(csv, capsys):
    rows = "\n".join(f"{i},{i * i}" for i in range(1, 51))
    text = printed(capsys, csv(rows))
    shown = section(text, "The batch", "1. Mean")
    assert [int(n) for n in re.findall(r"row (\d+) ", shown)] == [*range(1, 11), 50]
    assert "..." in shown
    assert numbers(shown)[-1] == ["50.0000", "2500.0000"]
    # The statistics are those of all fifty rows.
    assert numbers(section(text, "1. Mean", "2. Variance")) == [["25.5000", "858.5000"]]


def test_small_and_large_columns_keep_their_digits(csv, capsys):
    text = printed(capsys, csv("0.00002,3e12,1\n0.00004,5e12,3\n"))
    assert numbers(section(text, "1. Mean", "2. Variance")) == [
        ["3.0000e-05", "4.0000e+12", "2.0000"]
    ]


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        ([10.66666, -0.0], ["10.6667", "0.0000"]),
        ([1.0, -3e-7], ["1.0000", "0.0000"]),
        ([2e-17, 0.0], ["0.0000", "0.0000"]),
        ([2.5e-7, 0.0], ["2.5000e-07", "0.0000e+00"]),
    ],
    ids=["places", "rounding in a column", "rounding alone", "small"],
)
def test_places_fit_the_column(column, shown, capsys):
    console = Console(color_system=None)
    walkthrough.print_features(console, ["a"], [("row", np.array([value])) for value in column])
    lines = capsys.readouterr().out.split("row")[1:]
    assert [line.strip() for line in lines] == shown
