"""When a claim counts as reproduced, and how it is told."""

import json
import os

import numpy as np
import pytest
from matplotlib.figure import Figure
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
    at_least,
    at_most,
    between,
    near,
)
from experiments.papers.figures import draw
from experiments.papers.tools.spread import spread

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("measured", "allowed", "verdict"),
    [
        ([1.0, 1.02, 0.98], near(1.0, absolute=0.1), "reproduced"),
        ([1.0, 1.02, 0.98], near(1.0, absolute=0.001), "fragile"),
        ([1.0, 1.02, 0.98], near(2.0, relative=0.1), "not reproduced"),
        ([2.0, 2.1, 2.05], at_least(1.0), "reproduced"),
        ([2.0, 2.1, 2.05], at_most(1.0), "not reproduced"),
        ([1.0, 3.0, 2.0], at_least(1.0), "fragile"),  # the mean is inside, its interval is not
        ([0.5], between(0.0, 1.0), "reproduced"),
        ([3.0, 3.0, 3.0], between(0.0, 1.0), "not reproduced"),
        ([INF, INF], at_least(1.0), "reproduced"),
        ([INF, 2.0], at_least(1.0), "reproduced"),
        ([INF, 0.5], at_least(1.0), "fragile"),
        ([NAN, 2.0], at_least(1.0), "fragile"),
        ([NAN, NAN], at_least(1.0), "fragile"),
    ],
)
def test_verdicts(measured, allowed, verdict):
    assert Check("q", np.array(measured), allowed, "theory").verdict == verdict


def test_the_interval_is_students():
    values = np.random.default_rng(0).normal(size=7)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    mean, low, high = Check("q", values, at_least(0), "theory").interval
    np.testing.assert_allclose((mean, low, high), (values.mean(), *theirs), rtol=1e-12)


def test_a_claim_is_as_good_as_its_checks():
    def outcome(*measured):
        return Outcome([Check("q", np.array([m]), at_least(1.0), "theory") for m in measured], [])

    assert outcome(1.0, 2.0).verdict == "reproduced"
    assert outcome(0.0, 0.5).verdict == "not reproduced"
    assert outcome(0.0, 2.0).verdict == "fragile"


def test_every_claim_is_told_in_full():
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert all((claim.sentence, claim.citation, claim.setup, claim.formula)), claim.name
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


def test_a_figure_holds_every_panel():
    lines = [
        Line("runs", [0, 1, 2], np.array([[1.0, 2.0, NAN], [1.5, NAN, NAN]])),
        Line("law", [0, 1, 2], np.array([1.0, 2.0, 3.0]), expected=True),
    ]
    figure = draw(Outcome([], [Plot("one", "x", "y", lines), Plot("two", "x", "y", lines, "xy")]))
    assert isinstance(figure, Figure)
    first, second = figure.axes
    assert (first.get_title("left"), second.get_yscale()) == ("one", "log")
    labels = [text.get_text() for text in first.get_legend().get_texts()]
    assert labels == ["runs", "expected"]


@pytest.fixture
def two_claims(monkeypatch):
    """A cheap claim that holds, and one that needs MNIST."""

    def measure(setting):
        seeds = setting.seeds(full=4, quick=3)
        checks = [Check("|q| [h²]", seeds, at_most(100), "theory")]
        plot = Plot("p", "x", "y", [Line("runs", [0.0], seeds[:, None].astype(float))])
        return Outcome(checks, [plot], ["A remark."])

    words = {"sentence": "So.", "citation": "Someone", "setup": "Some", "formula": "q"}
    claims = (
        Claim("someone-claims", measure=measure, **words),
        Claim("other-claims", measure=measure, needs_mnist=True, group="contested", **words),
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
    assert "1 claims in 0 s: 1 reproduced" in said
    content = json.loads(file.read_text())
    (claim,) = content["claims"]
    assert claim["checks"][0]["per_seed"] == [0, 1, 2]
    assert claim["checks"][0]["allowed"] == ["-inf", 100]
    assert claim["verdict_with_other_seeds"] == {"1000": "not reproduced"}
    page = (tmp_path / "papers.md").read_text()
    assert r"| \|q\| [h²] | at most 100 | theory | 1 (-1.484 to 3.484) | reproduced |" in page
    assert "python -m experiments papers someone --quick --again 1000 --out DIR" in page
    assert "(papers/someone-claims.svg)" in page
    assert (tmp_path / "papers" / "someone-claims.svg").is_file()


def test_without_mnist_its_claims_are_left_out(two_claims, monkeypatch, capsys):
    from experiments.study import data

    def no_mnist(name, data_dir):
        raise data.DataError("no network")

    monkeypatch.delenv("JBN_DATA_DIR", raising=False)
    monkeypatch.setattr(data, "load", no_mnist)
    papers.main([])
    said = capsys.readouterr().out
    assert "1 claims in" in said
    assert "Left out: other-claims (no MNIST: no network)" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nobody"], "'nobody': no claim of this name"),
        (["--seed", "-1"], "seed -1: needs a whole number from 0"),
        (["--data-dir", "/nowhere"], "/nowhere: has neither train-images"),
    ],
)
def test_bad_input_ends_with_one_line(two_claims, arguments, says, capsys):
    with pytest.raises(SystemExit) as ended:
        papers.main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
