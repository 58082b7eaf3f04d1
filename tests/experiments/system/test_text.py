"""Labels that are not what they seem once they are stored, shown or read."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.system import text

GOOD = ["none", "no norm", "batch norm", "größe", "Ghost(12, Uncentered())", "γ=1, β=0", "a=b", "✓"]
BAD = [
    "", " ", "a ", " a", "a\n", "a\tb", "\x1b[2J", "a\0", "\ud800", "\u202eab", "\x9b", "\u200b",
    "None", "NA", "N/A", "null", "NULL", "nan", "NaN", "-nan", "<NA>", "inf", "Infinity", "true",
    "0.10", "1e-3", "1_000", "١٢", "=1+1", '=cmd|"/C calc"!A0', "@x", "+x", "-x", 1, None, b"a",
]  # fmt: skip


def test_labels_of_use():
    assert text.are_labels(GOOD)


@pytest.mark.parametrize("label", BAD, ids=repr)
def test_labels_that_something_takes_for_something_else(label):
    assert not text.are_labels(["batch norm", label])


@pytest.mark.parametrize("pair", [("BN", "bn"), ("ﬁ", "fi"), ("é", "e\u0301"), ("ß", "ss")])
def test_labels_that_readers_do_not_tell_apart(pair):
    assert not text.are_labels(pair)


@given(st.lists(st.text(max_size=6), min_size=1, max_size=4))
def test_what_is_a_label_comes_back(labels):
    if not text.are_labels(labels):
        return
    assert [label.encode().decode() for label in labels] == labels
    assert json.loads(json.dumps(labels)) == labels
    assert np.array(labels).tolist() == labels
    table = pd.DataFrame({"norm": labels}).to_csv(index=False, lineterminator="\n")
    assert pd.read_csv(io.StringIO(table)).norm.tolist() == labels
