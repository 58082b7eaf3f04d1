"""Text of a config file: labels, names of studies, the file itself."""

import pytest

from experiments.study.load import load_studies
from experiments.study.values import ConfigError
from experiments.system.console import printable

STUDY = """
import dataclasses
from forked import STUDY

study = dataclasses.replace(STUDY, {})
"""


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("norms={'None': None}", 'norms={"None": None}: needs labels of printable text'),
        ("norms={'BN': None, 'bn': None}", "different in more than case"),
        ("norms={'a\\n': None}", "needs labels of printable text"),
        ("norms={'=1+1': None}", "a formula (=, +, -, @ first)"),
        ("name='\\ud800'", 'name="\\ud800": needs printable text.'),
        ("claim='a\\x1b[2J'", 'claim="a\\u001b[2J": needs printable text.'),
    ],
)
def test_text_that_would_be_changed_is_refused(tmp_path, fields, says):
    (tmp_path / "c.py").write_text(STUDY.format(fields))
    with pytest.raises(ConfigError) as refused:
        load_studies(tmp_path / "c.py")
    assert says in printable(str(refused.value))  # as the console writes it


@pytest.mark.parametrize(
    "names",
    [["comparison.html"], ["a", "A"], ["a", "a "], [".a"], ["a."], ["a/b"], ["x" * 201], [1]],
)
def test_names_of_studies_that_are_no_folders(tmp_path, names):
    (tmp_path / "c.py").write_text(
        STUDY.format("") + f"studies = dict.fromkeys({names!r}, study)\n"
    )
    with pytest.raises(ConfigError, match="needs studies by name") as refused:
        load_studies(tmp_path / "c.py")
    assert len(str(refused.value)) < 600


def test_a_byte_order_mark(tmp_path):
    (tmp_path / "c.py").write_text(STUDY.format(""), encoding="utf-8-sig")
    assert load_studies(tmp_path / "c.py")[""].name == "short"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import sys\nsys.exit(0)\n", "c.py:2: SystemExit: 0"),
        ("raise SystemExit", "c.py:1: SystemExit: "),
        ("study = 1\0", "c.py: SyntaxError: source code string cannot contain null bytes"),
    ],
)
def test_a_config_that_ends_the_program(tmp_path, text, says):
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_studies(tmp_path / "c.py")
    assert str(refused.value).endswith(says)
