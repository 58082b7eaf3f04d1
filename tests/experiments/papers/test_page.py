"""What the page of claims says of seeds, of stand-ins and of what the tests measure."""

import json

import numpy as np
import pytest

from experiments.commands import papers
from experiments.papers import catalogue
from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, StandIn, at_least
from experiments.papers.controls import QUICK
from experiments.papers.results import ITSELF, Result, Trial, read
from experiments.papers.seeds import moves
from experiments.papers.tools.in_weights import NoPlace
from experiments.papers.tools.stand_ins import as_function, stand_ins


def outcome(value):
    return Outcome([Check("q", np.array(value), at_least(1.0), "theory")], [])


WORDS = {"sentence": "So.", "citation": "Someone", "formula": "q", "registered": "2026-01-01"}
VALUES = {"reproduced": 2.0, "refuted": 0.0, "undecided": [0.9, 1.2]}


def claim(name="someone-claims", **fields):
    plot = Plot("p", "x", "y", [Line("runs", [0.0], [1.0])])
    measured = outcome(2.0)._replace(plots=[plot])
    return Claim(
        name=name, measure=lambda setting: measured, setup=lambda setting: "Some", **WORDS, **fields
    )


def result(name, verdict, again=(), trials=(), **fields):
    mixed = Outcome([*outcome(2.0).checks, *outcome(0.0).checks], [])
    found = mixed if verdict == "mixed" else outcome(VALUES[verdict])
    return Result(claim(name, **fields), found, "", 0.0, [], {}, dict(again), dict(trials))


def test_moves_between_seeds_are_counted_and_named():
    told = moves(
        [
            result("a", "reproduced", {1000: "reproduced", 2000: "reproduced"}),
            result("b", "undecided", {1000: "reproduced", 2000: "undecided"}),
            result("c", "reproduced", {1000: "reproduced", 2000: "refuted"}),
            result("d", "mixed", {2000: "refuted", 1000: "undecided"}),
            result("not measured again", "refuted"),
        ]
    )
    assert told == [
        "1 of 4 have the same verdict with seeds from 1000 and 2000.",
        "Between reproduced and refuted: 1: c (reproduced; 1000: reproduced, 2000: refuted).",
        "Between mixed and one of these: 1: d (mixed; 1000: undecided, 2000: refuted).",
        "To or from undecided: 2: b (undecided; 1000: reproduced, 2000: undecided); "
        "d (mixed; 1000: undecided, 2000: refuted).",
    ]
    assert moves([result("a", "reproduced")]) == []
    assert moves([result("a", "refuted", {5: "refuted"})])[1] == (
        "Between reproduced and refuted: none."
    )


def trials(*seconds, must_fail=True):
    """Of the claim itself, and of controls, or other stand-ins, beside it."""
    names = [ITSELF, *map(str, range(1, len(seconds)))]
    return {
        name: Trial(outcome(0.0), must_fail and name != ITSELF, {}, taken)
        for name, taken in zip(names, seconds)
    }


def refusing(setting, norm):
    as_function(norm)(np.ones((2, 4), np.float32))
    return outcome(0.0)


def test_what_has_no_place_is_a_footnote_and_is_kept(tmp_path, monkeypatch):
    one = claim(stand_ins=stand_ins(refusing, must_fail=("no norm",)))
    monkeypatch.setattr(catalogue, "CLAIMS", (one, claim("other-claims", stand_ins=one.stand_ins)))
    arguments = ["--quick", "--out", str(tmp_path), "--stand-ins", "all"]
    for resumed in ([], ["--resume"]):
        papers.main([*arguments, *resumed])
        page = (tmp_path / "papers.md").read_text()
        row = "| [someone-claims](#someone-claims) | reproduced |" + " refuted |" * 5
        assert f"{row} - (1) | - (1) |" in page
        assert page.count("\n(1) It is made in the weights of a layer, and in this claim") == 1
        assert "2 of 2 negative controls did not come out reproduced." in page
    kept = json.loads((tmp_path / "papers.json").read_text())["claims"][0]["stand_ins"]
    assert kept["weight standardisation"]["verdict"] is None
    assert kept["layer norm"]["no_place"] == ""
    (first, _) = read(tmp_path / "papers.json", catalogue.CLAIMS)
    assert first.stand_ins["no norm"].seconds is not None


def test_a_negative_control_must_have_a_place(tmp_path, monkeypatch):
    one = claim(stand_ins=stand_ins(refusing, must_fail=("weight standardisation",)))
    monkeypatch.setattr(catalogue, "CLAIMS", (one,))
    with pytest.raises(NoPlace):
        papers.main(["--stand-ins", "controls"])


def test_the_page_says_which_controls_the_tests_measure(tmp_path, monkeypatch):
    one = claim(stand_ins=[StandIn("no norm", lambda setting: outcome(0.0), must_fail=True)])
    monkeypatch.setattr(catalogue, "CLAIMS", (one,))
    papers.main(["--out", str(tmp_path)])
    assert "make test" not in (tmp_path / "papers.md").read_text()
    papers.main(["--out", str(tmp_path), "--resume", "--stand-ins", "all"])
    page = (tmp_path / "papers.md").read_text()
    assert f"`make test` measures the negative controls of {len(QUICK)} claims again" in page


def test_a_section_gives_the_command_that_measures_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "CLAIMS", (claim(),))
    papers.main(["--quick", "--seed", "7", "--again", "9", "--out", str(tmp_path)])
    page = (tmp_path / "papers.md").read_text()
    assert "- Command: `python -m experiments papers someone-claims --quick --seed 7`" in page
