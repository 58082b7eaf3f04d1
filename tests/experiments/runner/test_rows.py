"""`metrics.csv` while a study runs and after: what the dataset says, once, in order."""

import errno
import os

import numpy as np
import pandas as pd
import pytest

from experiments.runner import results
from experiments.runner.rows import ROWS, Evaluation, Rows, evaluated
from experiments.study.trace import trace
from experiments.system.files import SaveError

PER_LAYER = ("gradient_norm", "gradient_norm_cv", "gradient_noise", "update_ratio")


@pytest.fixture
def dataset(small):
    """Two networks, three rates, two seeds, six evaluations, and no two numbers alike."""
    dataset = results.blank(trace(small()))
    generator = np.random.default_rng(0)
    for name, variable in dataset.data_vars.items():
        if name != "diverged_at":
            variable.values[...] = generator.normal(size=variable.shape)
    dataset.train_loss[:, :, :, 0] = np.nan
    dataset.test_loss[1, 2, 1, 2] = np.nan
    return dataset


def test_all_rows_are_the_dataset(dataset, tmp_path):
    Rows(tmp_path).begin(dataset, 80)
    frame = pd.read_csv(tmp_path / ROWS)
    keys = ["norm", "learning_rate", "seed", "step"]
    assert list(frame.columns[:4]) == keys
    assert len(frame) == 2 * 3 * 2 * 6
    assert frame.norm.drop_duplicates().tolist() == ["no norm", "batch norm"]
    assert frame.step[:12].tolist() == [0] * 6 + [2] * 6
    runs = frame.set_index(keys)
    assert runs.index.is_unique
    for name in ("test_accuracy", "test_loss", "train_loss", "gradient_cosine"):
        assert_equal(runs[name], dataset[name])
    for name in PER_LAYER:
        for layer in dataset.layer.values:
            assert_equal(runs[f"{name}/{layer}"], dataset[name].sel(layer=layer))
    for percentile in (15, 50, 85):
        expected = dataset.activation_percentile.sel(percentile=percentile)
        assert_equal(runs[f"activation_percentile/{percentile}"], expected)
    assert len(runs.columns) == 4 + 4 * 3 + 3


def test_what_is_swept_has_a_column(small, tmp_path):
    dataset = results.blank(trace(small(epsilon=(1e-5, 0.1))))
    dataset.test_loss.values[...] = np.arange(dataset.test_loss.size).reshape(3, 3, 2, 6)
    Rows(tmp_path).begin(dataset, 80)
    frame = pd.read_csv(tmp_path / ROWS)
    keys = ["norm", "label", "epsilon", "learning_rate", "seed", "step"]
    assert list(frame.columns[:6]) == keys
    names = ["no norm", "batch norm, epsilon=1e-05", "batch norm, epsilon=0.1"]
    assert frame.norm.drop_duplicates().tolist() == names
    assert frame.label.value_counts().to_dict() == {"no norm": 36, "batch norm": 72}
    np.testing.assert_array_equal(frame.epsilon.unique(), [np.nan, 1e-5, 0.1])
    # Both networks of a program are measured together, before the next step.
    assert frame.step[36:].is_monotonic_increasing
    assert_equal(
        frame.set_index(["norm", "learning_rate", "seed", "step"]).test_loss, dataset.test_loss
    )


def assert_equal(column, variable):
    variable = variable.rename("it").reset_coords(drop=True).to_series()
    found = column.astype(np.float32).reindex(variable.index)
    np.testing.assert_array_equal(found.values, variable.values)


def test_rows_that_come_are_the_rows_of_before(dataset, tmp_path):
    come, before = tmp_path / "come", tmp_path / "before"
    come.mkdir()
    before.mkdir()
    rows = Rows(come)
    rows.begin(dataset, 0)
    assert len(pd.read_csv(come / ROWS)) == 0
    for i, evaluation in enumerate(evaluated(dataset, 80)):
        rows.append(dataset, evaluation)
        assert len(pd.read_csv(come / ROWS)) == 6 * (i + 1)
    rows.end(dataset)
    Rows(before).begin(dataset, 80)
    assert (come / ROWS).read_bytes() == (before / ROWS).read_bytes()


@pytest.mark.parametrize(
    ("done", "last", "count"),
    [
        (0, None, 0),
        (20, Evaluation("no norm", 20), 5),
        (40, Evaluation("no norm", 40), 6),
        (60, Evaluation("batch norm", 20), 11),
        (80, Evaluation("batch norm", 40), 12),
    ],
)
def test_what_a_checkpoint_has_measured(dataset, done, last, count):
    measured = list(evaluated(dataset, done))
    assert len(measured) == count
    assert (measured or [None])[-1] == last


def test_a_full_disk_is_named(dataset, tmp_path, monkeypatch):
    rows = Rows(tmp_path)
    rows.begin(dataset, 0)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SaveError) as caught:
        rows.end(dataset)
    (tmp_path / ROWS).unlink()
    (tmp_path / ROWS).mkdir()
    with pytest.raises(SaveError) as other:
        rows.append(dataset, Evaluation("no norm", 0))
    assert caught.value.filename == other.value.filename == str(tmp_path / ROWS)
