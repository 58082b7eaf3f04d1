"""Results of a loop of one's own are read as a study's, or refused by one line."""

import json

import numpy as np
import pytest

from experiments.__main__ import main
from experiments.report.summary import summarize
from experiments.report.write import load_study
from experiments.runner import results
from experiments.runner.own import write_results
from experiments.study import Regression

AXES = {
    "norms": ["none", "batch"],
    "learning_rates": [0.1, 1.0],
    "seeds": [0, 3],
    "steps": [0, 5, 9],
}
SHAPE = (2, 2, 2, 3)


def accuracy() -> np.ndarray:
    rising = np.linspace(0.1, 0.9, 24).reshape(SHAPE)
    rising[1, 1, 0, 1:] = np.nan  # a run that is lost
    return rising


def write(folder, **changed):
    measures = {"test_accuracy": accuracy()} | changed.pop("measures", {})
    fields = {"name": "mine", "claim": "It helps.", **AXES, "measures": measures, **changed}
    return write_results(folder, **fields)


def test_a_report_reads_what_was_written(tmp_path):
    right = np.arange(2 * 2 * 2 * 7).reshape(2, 2, 2, 7) % 3 == 0
    norms = np.linspace(1, 2, 48).reshape(*SHAPE, 2)
    seconds = np.array([[np.nan, 2.0, 1.0], [np.nan, 4.0, 3.0]])
    measures = {
        "test_example_score": right,
        "gradient_norm": norms,
        "seconds_per_step": seconds,
    }
    folder = write(tmp_path / "mine", measures=measures, layers=("a", "b"), chance=0.1)
    dataset = load_study(folder)
    np.testing.assert_array_equal(dataset.test_accuracy, accuracy().astype(np.float32))
    np.testing.assert_array_equal(dataset.test_example_score, right)
    np.testing.assert_array_equal(dataset.gradient_norm, norms.astype(np.float32))
    assert dataset.layer.values.tolist() == ["a", "b"]
    assert dataset.step.values.tolist() == [0, 5, 9]
    expected = np.full((2, 2, 2), -1)
    expected[1, 1, 0] = 5
    np.testing.assert_array_equal(dataset.diverged_at, expected)
    summary = summarize(dataset)
    assert summary["test_examples"] == 7
    assert summary["norms"]["none"]["seconds_per_step"]["median"] == 2.0  # of the longest window
    assert summary["norms"]["batch"]["gradients"]["update_ratio"]["a"]["mean"] is None
    rows = (folder / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 24


def test_what_was_not_measured_says_so(tmp_path):
    dataset = results.load(write(tmp_path / "mine"))
    assert dataset.test_loss.isnull().all()
    assert dataset.test_loss.attrs["description"] == "Not measured."
    assert dataset.test_accuracy.attrs["description"].startswith("Accuracy on the test set")
    assert "test_example_score" not in dataset


def test_the_same_results_may_be_written_again_and_no_others(tmp_path):
    write(tmp_path, config={"network": "MLP", "width": np.int64(8)})
    before = (tmp_path / "config.json").read_bytes()
    assert json.loads(before)["width"] == 8
    write(tmp_path, config={"network": "MLP", "width": 8})
    assert (tmp_path / "config.json").read_bytes() == before
    with pytest.raises(ValueError, match='is another study\'s: claim="It helps."'):
        write(tmp_path, claim="It hurts.", config={"network": "MLP", "width": 8})
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "metrics.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"has metrics.csv, which a study would replace"):
        write(tmp_path / "theirs")
    assert (tmp_path / "theirs" / "metrics.csv").read_text() == "mine"


def test_it_is_listed_and_not_run_over(tmp_path, capsys):
    write(tmp_path / "mine")
    main(["list", str(tmp_path)])
    assert "finished" in capsys.readouterr().out


def test_another_score_than_accuracy(tmp_path):
    measures = {"test_r2": accuracy(), "test_loss": accuracy()}
    folder = write_results(
        tmp_path, name="mine", claim="It helps.", **AXES, measures=measures, task=Regression()
    )
    assert summarize(load_study(folder))["score"] == "explained variance"


LOST = accuracy()
LOST[0, 0, 0, 2] = np.nan


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"norms": []}, r"norms=\[\]: needs distinct labels, one at least"),
        ({"norms": ["a", "a"]}, "norms="),
        ({"learning_rates": (0.1, -1.0)}, "learning_rates=.*: needs distinct positive"),
        ({"learning_rates": (0.1, float("nan"))}, "learning_rates="),
        ({"seeds": (0, 0.5)}, "seeds="),
        ({"steps": (0, 9, 5)}, "steps=.*: needs distinct rising numbers"),
        ({"name": "a\x1bb"}, "name="),
        ({"measures": {"accuracy": accuracy()}}, "measures: accuracy: known are test_accuracy"),
        ({"measures": {"test_loss": np.zeros(3)}}, r"test_loss: is float64\[3\], needs numbers"),
        ({"measures": {"test_loss": np.full(SHAPE, "x")}}, "test_loss: is <U1"),
        ({"measures": {"test_example_score": 3}}, "test_example_score: is"),
        (
            {"measures": {"test_accuracy": LOST, "diverged_at": np.full((2, 2, 2), -1)}},
            "test_accuracy: is NaN at the last step of a run that has not diverged",
        ),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, fields, says):
    with pytest.raises(ValueError, match=says) as refused:
        write(tmp_path / "mine", **fields)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "mine").exists()


def test_the_score_is_needed(tmp_path):
    with pytest.raises(ValueError, match="test_accuracy is needed"):
        write_results(tmp_path, name="a", claim="b", **AXES, measures={})
