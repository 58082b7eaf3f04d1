"""When a claim counts as reproduced, and how it is told."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments.commands import papers
from experiments.papers import catalogue
from experiments.papers.catalogue import CLAIMS, choose
from experiments.papers.claim import (
    Check,
    Claim,
    Line,
    Outcome,
    Plot,
    Setting,
    StandIn,
    at_least,
    at_most,
    between,
    near,
)
from experiments.papers.results import ITSELF
from experiments.papers.tools.spread import spread

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("measured", "allowed", "verdict"),
    [
        ([1.0, 1.02, 0.98], near(1.0, absolute=0.1), "reproduced"),
        ([1.0, 1.02, 0.98], near(1.0, absolute=0.001), "undecided"),
        ([1.0, 1.02, 0.98], near(2.0, relative=0.1), "refuted"),
        ([2.0, 2.1, 2.05], at_least(1.0), "reproduced"),
        ([2.0, 2.1, 2.05], at_most(1.0), "refuted"),
        ([1.0, 3.0, 2.0], at_least(1.0), "undecided"),  # the mean is inside, its interval is not
        ([0.5], between(0.0, 1.0), "reproduced"),
        ([3.0, 3.0, 3.0], between(0.0, 1.0), "refuted"),
        ([INF, INF], at_least(1.0), "reproduced"),
        ([INF, 2.0], at_least(1.0), "reproduced"),
        ([INF, 0.5], at_least(1.0), "undecided"),
        ([INF, 0.5], at_most(1.0), "refuted"),  # a finite number is claimed
        ([-INF, 0.5], at_most(1.0), "reproduced"),
        ([-INF, 2.0], at_least(1.0), "refuted"),
        ([NAN, 2.0], at_least(1.0), "refuted"),
        ([NAN, NAN], at_most(1.0), "refuted"),
    ],
)
def test_verdicts(measured, allowed, verdict):
    assert Check("q", np.array(measured), allowed, "theory").verdict == verdict


def test_the_interval_is_students():
    values = np.random.default_rng(0).normal(size=7)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    mean, low, high = Check("q", values, at_least(0), "theory").interval
    np.testing.assert_allclose((mean, low, high), (values.mean(), *theirs), rtol=1e-12)


def outcome(*measured, controls=()):
    """That of quantities which should be at least one."""

    def check(value, control):
        return Check("q", np.array(value), at_least(1.0), "theory", control)

    return Outcome([*(check(m, False) for m in measured), *(check(c, True) for c in controls)], [])


OPEN = [0.9, 1.2]


def test_a_claim_is_as_good_as_its_checks():
    assert outcome(1.0, 2.0).verdict == "reproduced"
    assert outcome(0.0, 0.5).verdict == "refuted"
    assert outcome(0.0, 2.0).verdict == "mixed"
    assert outcome(0.0, OPEN).verdict == "undecided"
    assert outcome(2.0, OPEN).verdict == "undecided"
    assert outcome(0.0, 2.0, OPEN).verdict == "mixed"


def test_a_control_takes_away_and_never_adds():
    assert outcome(2.0, controls=[2.0]).verdict == "reproduced"
    assert outcome(2.0, controls=[0.0]).verdict == "mixed"
    assert outcome(2.0, controls=[OPEN]).verdict == "undecided"
    assert outcome(0.0, controls=[2.0]).verdict == "refuted"
    assert outcome(0.0, 2.0, controls=[2.0]).verdict == "mixed"
    assert outcome(0.0, OPEN, controls=[2.0]).verdict == "undecided"


def test_every_claim_is_told_in_full():
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        setups = {claim.setup(setting) for setting in (Setting(), Setting(quick=True))}
        assert all((claim.sentence, claim.citation, *setups, claim.formula)), claim.name
        assert claim.sentence.endswith("."), claim.name


def test_claims_are_chosen_by_name_or_author():
    assert choose([]) == list(CLAIMS)
    assert [claim.name for claim in choose(["yang-gradients"])] == ["yang-gradients"]
    assert {claim.name for claim in choose(["yang"])} >= {"yang-gradients", "yang-fixed-point"}
    with pytest.raises(ValueError, match=r"'yang-gradient': no claim.*Did you mean 'yang-gradien"):
        choose(["yang-gradient"])


def test_spread_is_a_loop_over_rows():
    x = np.arange(7, dtype=np.float32)  # not a multiple of the devices
    scale = np.float32(3)
    result = spread(lambda s, a, b: {"sum": s * a + b}, x, x[::-1], given=(scale,))
    np.testing.assert_array_equal(result["sum"], scale * x + x[::-1])


@pytest.fixture
def two_claims(monkeypatch):
    """A cheap claim that holds, and one that needs MNIST."""

    def measure(setting):
        seeds = setting.seeds(full=4, quick=3)
        checks = [Check("|q| [h²]", seeds, at_most(100), "theory")]
        plot = Plot("p", "x", "y", [Line("runs", [0.0], seeds[:, None].astype(float))])
        return Outcome(checks, [plot], ["A remark."])

    words = {"sentence": "So.", "citation": "Someone", "formula": "q", "registered": "2026-01-01"}
    words["setup"] = lambda setting: "Some"
    claims = (
        Claim(name="someone-claims", measure=measure, **words),
        Claim(name="other-claims", measure=measure, needs_mnist=True, group="contested", **words),
    )
    monkeypatch.setattr(catalogue, "CLAIMS", claims)
    return claims


def test_the_command_writes_what_it_measured(two_claims, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=there")
    file = tmp_path / "all.json"
    arguments = ["someone", "--quick", "--again", "1000", "--out", str(tmp_path)]
    papers.main([*arguments, "--json", str(file)])
    assert os.environ["XLA_FLAGS"] == "--xla_dump_to=there --xla_backend_optimization_level=1"
    said = capsys.readouterr().out
    assert "|q| [h²]" in said
    assert "1 claims of 1 papers: 1 reproduced" in said
    content = json.loads(file.read_text())
    (claim,) = content["claims"]
    assert claim["checks"][0]["per_seed"] == [0, 1, 2]
    assert claim["checks"][0]["allowed"] == ["-inf", 100]
    assert claim["verdict_with_other_seeds"] == {"1000": "refuted"}
    page = (tmp_path / "papers.md").read_text()
    assert r"| \|q\| [h²] | at most 100 | theory | 1 (-1.484 to 3.484) | reproduced |" in page
    assert "python -m experiments papers someone --quick --again 1000 --out DIR" in page
    assert "(papers/someone-claims.svg)" in page
    assert (tmp_path / "papers" / "someone-claims.svg").is_file()


def test_a_page_is_merged_and_a_claim_is_not_measured_twice(two_claims, tmp_path, monkeypatch):
    def run(*arguments):
        papers.main([*arguments, "--quick", "--out", str(tmp_path), "--data-dir", "x"])
        content = json.loads((tmp_path / "papers.json").read_text())
        return {claim["name"]: claim for claim in content["claims"]}

    monkeypatch.setattr(papers, "_mnist", lambda _: (object(), ""))
    monkeypatch.setattr(catalogue, "CLAIMS", two_claims[::-1])
    first = run("someone-claims", "--again", "5")
    figure = (tmp_path / "papers" / "someone-claims.svg").read_bytes()
    both = run("other-claims")
    assert [*both] == ["other-claims", "someone-claims"]  # in the catalogue's order
    assert both["someone-claims"] == first["someone-claims"]
    page = (tmp_path / "papers.md").read_text()
    assert "## someone-claims" in page
    assert "## other-claims" in page
    assert "papers someone-claims --quick`" in page  # what it was measured with
    assert (tmp_path / "papers" / "someone-claims.svg").read_bytes() == figure

    asked = []
    measure = two_claims[0].measure
    claims = [
        dataclasses.replace(c, measure=lambda s, c=c: asked.append((c.name, s)) or measure(s))
        for c in two_claims
    ]
    monkeypatch.setattr(catalogue, "CLAIMS", tuple(claims))
    again = run("--again", "5", "7", "--resume")
    assert [(name, setting.first_seed) for name, setting in asked] == [
        ("other-claims", 5),
        ("someone-claims", 7),
        ("other-claims", 7),
    ]
    assert again["someone-claims"]["checks"] == first["someone-claims"]["checks"]
    assert set(again["someone-claims"]["verdict_with_other_seeds"]) == {"5", "7"}
    asked.clear()
    run("--seed", "3", "--resume")  # other seeds: nothing of that was measured
    assert len(asked) == 2


def test_killed_between_two_claims_it_goes_on(two_claims, tmp_path, monkeypatch):
    def die(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(papers, "_mnist", lambda _: (object(), ""))
    dying = dataclasses.replace(two_claims[1], measure=die)
    monkeypatch.setattr(catalogue, "CLAIMS", (two_claims[0], dying))
    with pytest.raises(KeyboardInterrupt):
        papers.main(["--out", str(tmp_path)])
    monkeypatch.setattr(
        catalogue, "CLAIMS", (dataclasses.replace(two_claims[0], measure=die), two_claims[1])
    )
    papers.main(["--out", str(tmp_path), "--resume"])
    assert "## other-claims" in (tmp_path / "papers.md").read_text()


def test_stand_ins_are_measured_and_one_that_must_fail_alarms(two_claims, tmp_path, monkeypatch):
    def trying(value):
        return lambda setting: outcome(value)

    stand_ins = [
        StandIn("layer norm", trying(2.0)),
        StandIn("no norm", trying(0.0), must_fail=True),
    ]
    claim = dataclasses.replace(two_claims[0], stand_ins=stand_ins)
    monkeypatch.setattr(catalogue, "CLAIMS", (claim,))
    arguments = ["--out", str(tmp_path), "--quick"]
    papers.main(arguments)
    before = json.loads((tmp_path / "papers.json").read_text())["claims"][0]
    assert before["stand_ins"] == {}
    papers.main([*arguments, "--stand-ins", "controls", "--resume"])
    (claim,) = json.loads((tmp_path / "papers.json").read_text())["claims"]
    assert [*claim["stand_ins"]] == ["itself", "no norm"]
    papers.main([*arguments, "--stand-ins", "all", "--resume"])
    page = (tmp_path / "papers.md").read_text()
    assert "| [someone-claims](#someone-claims) | reproduced | refuted | reproduced |" in page
    assert "in the quick form, and not to be reproduced: no norm (refuted); itself: rep" in page
    assert "1 of 1 negative controls did not come out reproduced." in page

    stand_ins[1] = StandIn("no norm", trying(3.0), must_fail=True)
    with pytest.raises(SystemExit, match="someone-claims with no norm"):
        papers.main([*arguments, "--stand-ins", "all"])
    # What is kept is told again, and alarms again.
    with pytest.raises(SystemExit, match="must not be"):
        papers.main([*arguments, "--resume"])


def test_no_stand_in_is_called_what_the_claim_itself_is_called():
    for claim in CLAIMS:
        names = [stand_in.name for stand_in in claim.stand_ins]
        assert len({*names, ITSELF}) == len(names) + 1, claim.name
        assert any(stand_in.must_fail for stand_in in claim.stand_ins), claim.name
        assert claim.registered, claim.name


def test_a_setup_tells_the_numbers_that_were_used(two_claims, tmp_path, monkeypatch):
    claim = dataclasses.replace(two_claims[0], setup=lambda s: f"{len(s.seeds(4, 3))} seeds.")
    monkeypatch.setattr(catalogue, "CLAIMS", (claim,))
    for arguments, says in ([], "4 seeds."), (["--quick"], "3 seeds."):
        papers.main([*arguments, "--out", str(tmp_path)])
        assert f"- Set-up: {says}" in (tmp_path / "papers.md").read_text()


def test_without_mnist_its_claims_are_left_out(two_claims, monkeypatch, capsys):
    from experiments.study import data

    def no_mnist(name, data_dir):
        raise data.DataError("no network")

    monkeypatch.delenv("JBN_DATA_DIR", raising=False)
    monkeypatch.setattr(data, "load", no_mnist)
    papers.main([])
    said = capsys.readouterr().out
    assert "1 claims of" in said
    assert "Left out: other-claims (no MNIST: no network)" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nobody"], "'nobody': no claim of this name"),
        (["--seed", "-1"], "seed -1: needs a whole number from 0"),
        (["--data-dir", "/nowhere"], "/nowhere: has neither train-images"),
        (["--seed", "1", "--again", "1"], "--seed and --again: need other seeds each"),
        (["--resume"], "--resume: needs --json or --out"),
        (["--json", "."], ".: cannot be written (is no file)."),
        (["--json", "/dev/full"], "/dev/full: cannot be written (is no file)."),
        (["--json", "file/x.json"], "file/x.json: cannot be written (File exists)."),
        (["--out", "file"], "file/papers.json: cannot be written (File exists)."),
        (["--json", "file"], "file: is not what `papers --json` writes"),
        (["--out", "mine"], "mine/papers.md: is there, and mine/papers.json, which"),
        (["--out", "/proc/x"], "/proc/x/papers.json: cannot be written (No such file"),
    ],
)
def test_bad_input_ends_with_one_line(two_claims, arguments, says, capsys, tmp_path, monkeypatch):
    def measure(_):
        raise AssertionError

    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("mine").mkdir()
    Path("mine/papers.md").write_text("mine")
    claims = [dataclasses.replace(claim, measure=measure) for claim in two_claims]
    monkeypatch.setattr(catalogue, "CLAIMS", tuple(claims))
    with pytest.raises(SystemExit) as ended:
        papers.main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
