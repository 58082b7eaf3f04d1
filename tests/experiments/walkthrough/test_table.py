"""Tables are read as people have them, or refused in one line that says what to do."""

import re
from pathlib import Path

import chex
import numpy as np
import pytest

from experiments.walkthrough import read_table

X = np.array([[1.0, 2.5], [5, 6], [9, 10]])


@pytest.fixture
def csv(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "table.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


@pytest.mark.parametrize(
    "text",
    [
        "1,2.5\n5,6\n9,10\n",
        "1, 2.5\r\n5 ,6\r\n9, 10",
        "1,2.5\r5,6\r9,10\r",
        "1;2.5\n5;6\n9;10\n",
        "1|2.5\n5|6\n9|10\n",
        "1\t2.5\n5\t6\n9\t10\n",
        "1 2.5\n 5  6\n9 10 \n",
        "1,0;2,5\n5,0;6,0\n9,0;10,0\n",
        "1\t2,5\n5\t6\n9\t10\n",
        '"1","2,5"\n"5","6"\n"9","10"\n',
        "sep=;\n1;2,5\n5;6\n9;10\n",
        "# of yesterday\n1,2.5\n\n5,6e0\n  \n9,10\n",
        b"\xef\xbb\xbf1,2.5\n5,6\n9,10",
        "1\t2,5\n5\t6\n9\t10".encode("utf-16"),
        b"\xfe\xff" + "1\t2.5\n5\t6\n9\t10".encode("utf-16-be"),
    ],
)
def test_separators_decimals_and_encodings(csv, text):
    table = read_table(csv(text))
    chex.assert_trees_all_equal(table.to_numpy(), X)
    assert list(table.columns) == ["x1", "x2"]
    assert list(table.index) == ["row 1", "row 2", "row 3"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_names_in_any_encoding(csv, encoding):
    table = read_table(csv("Höhe;Größe\n1;2,5\n5;6\n9;10\n".encode(encoding)))
    assert list(table.columns) == ["Höhe", "Größe"]
    chex.assert_trees_all_equal(table.to_numpy(), X)


@pytest.mark.parametrize(
    ("text", "rows", "columns"),
    [
        ("name,a,b\nAnn,1,2.5\nBen,5,6\nNan,9,10\n", ["Ann", "Ben", "Nan"], ["a", "b"]),
        ("Ann,1,2.5\nBen,5,6\nCleo,9,10\n", ["Ann", "Ben", "Cleo"], ["x1", "x2"]),
        (",0,1\n0,1,2.5\n1,5,6\n2,9,10\n", ["0", "1", "2"], ["0", "1"]),  # pandas' to_csv
        ('"talk, min","a;b"\n1,2.5\n5,6\n9,10\n', None, ["talk, min", "a;b"]),
        ("a,a\n1,2.5\n5,6\n9,10\n", None, ["a", "a"]),
        ("who;x y;z\nAnn B;1;2,5\nC;5;6\nD;9;10\n", ["Ann B", "C", "D"], ["x y", "z"]),
    ],
)
def test_names(csv, text, rows, columns):
    table = read_table(csv(text))
    chex.assert_trees_all_equal(table.to_numpy(), X)
    assert list(table.columns) == columns
    assert rows is None or list(table.index) == rows


@pytest.mark.parametrize("text", ["talk minutes\n8\n5,5\n2\n", "talk minutes\n8\n5.5\n2\n"])
def test_one_column(csv, text):
    if "," in text:
        with pytest.raises(ValueError, match="row 3 has 2 cells, row 1 has 1"):
            read_table(csv(text))
    else:
        table = read_table(csv(text))
        assert list(table.columns) == ["talk minutes"]
        assert table["talk minutes"].tolist() == [8, 5.5, 2]


@pytest.mark.parametrize(
    "text",
    ["2020,2021\n5,6\n9,4\n", "name;1;2;3\nAnn;5;9;4\nBen;7;7;7\n", "n1,2\n5,6\n9,4\n"],
)
def test_a_row_that_may_be_names_has_to_be_said(csv, text):
    with pytest.raises(ValueError, match="row 1 .* may be names or numbers: --header yes"):
        read_table(csv(text))
    names = read_table(csv(text), "yes")
    assert len(names) == 2
    assert str(names.columns[-1]) in text.splitlines()[0]
    if "n1" not in text:
        assert len(read_table(csv(text), "no")) == 3


def test_the_article_is_data(csv):
    table = read_table(csv("1,2,3,4\n5,6,7,8\n9,10,11,12\n"))
    chex.assert_trees_all_equal(table.to_numpy(), np.arange(1.0, 13).reshape(3, 4))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,x\n", "row 3, column 2: 'x' is not a finite number"),
        ("1,5\n# no\n3,x\n", "row 3, column 2: 'x' is not a finite number"),
        ("1,x\n3,4\n", "row 1 .1, x. may be names or numbers"),
        ("a,b\n1,2\n,4\n", "row 3, column 1: the cell is empty"),
        ("a,b\n1,2\n3,nan\n", "row 3, column 2: 'nan' is not a finite number"),
        ("a,b\n1,2\n3,1e999\n", "row 3, column 2: '1e999' is not a finite number"),
        ("a,b\n1,2\n3,1_000\n", "row 3, column 2: '1_000' is not a finite number"),
        ("id,name,a\n1,Ann,3\n2,Ben,4\n", "row 2, column 2: 'Ann' .* in the first row and"),
        ("a,b\n1,2\n3\n", "row 3 has 1 cell, row 1 has 2"),
        ("a,b\n1,2\n3,4,5\n", "row 3 has 3 cells, row 1 has 2"),
        ("1,2\n3,4,\n", "row 2 has 3 cells, row 1 has 2"),
        ("1 2\n3\n4\n", "row 2 has 1 cell, row 1 has 2"),
        ("a\tb\n1,200\t3\n", "row 2: '1,200' may have a decimal comma or one of thousands"),
        ('a,b\n"1,200",3\n', "row 2: '1,200' may have a decimal comma or one of thousands"),
        ("a;b\n1,5;1.200\n", "row 2: '1.200' has a point, and other numbers a decimal comma"),
        ("a,b\n", "no row of numbers, only row 1"),
        ("Ann\nBen\n", "no cell is a number"),
        ("", "is empty"),
        ("\n \n# nothing\n", "is empty"),
        ("1\t2\n".encode("utf-16-le"), "it is not text; save the table as CSV in UTF-8"),
        (b"PK\x03\x04\x00\x00", "it is not text"),
    ],
)
def test_what_cannot_be_read_is_one_line(csv, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_table(csv(text))
    assert "\n" not in str(caught.value)
    assert "table.csv" in str(caught.value)


def test_the_file_that_the_tutorial_names():
    root = Path(__file__).parents[3]
    tutorial = (root / "docs" / "tutorial.md").read_text(encoding="utf-8")
    (name,) = re.findall(r"walkthrough --csv (\S+)", tutorial)
    table = read_table(root / name)
    x = np.array([[160.0, 20_000], [170, 50_000], [180, 80_000]])
    chex.assert_trees_all_equal(table.to_numpy(), x)
    assert "[160.0, 20_000.0], [170.0, 50_000.0], [180.0, 80_000.0]" in tutorial


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*none\.csv: No such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"cannot read .*: Is a directory"):
        read_table(tmp_path)
