import io
import itertools
import json

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from experiments.runner import measured, results
from experiments.runner.run import run
from experiments.study import Classification
from experiments.study.measure import BINS
from experiments.system.interrupts import Interrupted
from jbn import Standard


def untimed(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.drop_vars("seconds_per_step")


STEPS = [0, 2, 5, 10, 20, 40]


def carry_out(study, folder, programs=None) -> tuple[xr.Dataset, str]:
    said = io.StringIO()
    folder.mkdir(exist_ok=True)
    console = Console(file=said, width=200)
    run(study, folder, data_dir=None, command="the command", console=console, programs=programs)
    return results.load(folder), said.getvalue()


@pytest.fixture(scope="module")
def programs():
    """Those of the small study, once it is `finished`."""
    return {}


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory, programs):
    folder = tmp_path_factory.mktemp("study")
    return *carry_out(small(), folder, programs), folder


def test_the_dataset_has_the_dimensions_of_the_study(finished):
    dataset, *_ = finished
    assert dict(dataset.sizes) == {
        "norm": 2,
        "learning_rate": 3,
        "seed": 2,
        "step": 6,
        "layer": 3,
        "place": 3,
        "percentile": 3,
        "bin": BINS,
        "test_example": 360,
    }
    assert dataset.norm.values.tolist() == ["no norm", "batch norm"]
    assert dataset.learning_rate.values.tolist() == [0.1, 1.0, 3.0]
    assert dataset.step.values.tolist() == STEPS
    assert dataset.layer.values.tolist() == ["hidden_1", "hidden_2", "output"]
    assert dataset.place.values.tolist() == ["norm_1", "norm_2", "output"]
    assert dataset.percentile.values.tolist() == [15, 50, 85]


def test_every_variable_says_what_it_is(finished):
    dataset, *_ = finished
    assert set(dataset.data_vars) == set(results.variables(Classification(), has_validation=False))
    for name, variable in dataset.data_vars.items():
        types = {"diverged_at": np.int32, "test_example_score": np.int8}
        assert variable.dtype == types.get(name, np.float32)
        assert set(variable.attrs) == {"long_name", "units", "description"}
        assert variable.attrs["description"].endswith(".")


def test_all_was_measured_but_windows_before_the_first_step(finished):
    dataset, *_ = finished
    start = {"train_loss", "gradient_norm", "gradient_norm_cv", "gradient_cosine", "update_ratio"}
    whole = {"diverged_at", "test_example_score", "seconds_per_step"}
    for name in set(dataset.data_vars) - whole:
        assert np.isnan(dataset[name].sel(step=0)).all() == (name in start), name
        assert np.isfinite(dataset[name].sel(step=STEPS[1:])).all(), name
    assert (dataset.diverged_at == -1).all()


def test_the_last_score_is_the_mean_of_the_examples(finished):
    dataset, *_ = finished
    assert set(np.unique(dataset.test_example_score)) == {0, 1}
    accuracy = dataset.test_example_score.astype(float).mean("test_example")
    np.testing.assert_allclose(accuracy, dataset.test_accuracy.sel(step=40), rtol=1e-6)


def test_seconds_are_of_all_windows_but_the_one_that_compiles(finished):
    dataset, *_ = finished
    known = np.isfinite(dataset.seconds_per_step)
    assert known.sel(step=[5, 10, 20, 40]).all()
    assert not known.sel(step=[0, 2]).any()
    assert (dataset.seconds_per_step.sel(step=40) > 0).all()


def test_runs_repeated_in_another_order_are_bit_identical(finished, small, tmp_path):
    dataset, *_ = finished
    labels = {"norm": ["batch norm"], "learning_rate": [3.0, 1.0, 0.1], "seed": [7, 0]}
    study = small(norms={"batch norm": Standard()}, learning_rates=(3.0, 1.0, 0.1), seeds=(7, 0))
    again, _ = carry_out(study, tmp_path)
    xr.testing.assert_equal(untimed(dataset).sel(labels), untimed(again))


def test_a_study_of_the_same_networks_compiles_nothing(
    finished, programs, small, tmp_path, monkeypatch
):
    dataset, *_ = finished
    monkeypatch.setattr("experiments.runner.run.make_sweep", None)
    labels = {"norm": ["batch norm"], "learning_rate": [3.0], "seed": [7, 0]}
    study = small(norms={"batch norm": Standard()}, learning_rates=(3.0,), seeds=(7, 0))
    again, _ = carry_out(study, tmp_path, programs)
    xr.testing.assert_equal(untimed(dataset).sel(labels), untimed(again))


def test_several_values_of_a_field_are_one_program(small, tmp_path):
    study = small(epsilon=(1e-5, 1e3), learning_rates=(0.1, 3.0))
    dataset, said = carry_out(study, tmp_path)
    assert "3 networks x 2 learning rates x 2 seeds" in said
    names = ["no norm", "batch norm, epsilon=1e-05", "batch norm, epsilon=1000.0"]
    assert dataset.norm.values.tolist() == names
    assert dataset.label.values.tolist() == ["no norm", "batch norm", "batch norm"]
    np.testing.assert_array_equal(dataset.epsilon, [np.nan, 1e-5, 1e3])
    assert np.isfinite(dataset.test_loss).all()
    alone, _ = carry_out(small(epsilon=1e3, learning_rates=(0.1, 3.0)), tmp_path / "alone")
    mine, theirs = dataset.sel(norm=names[2]), alone.sel(norm="batch norm")
    np.testing.assert_allclose(mine.test_loss, theirs.test_loss, rtol=1e-3)
    by_value = dataset.sel(norm=dataset.label == "batch norm").swap_dims(norm="epsilon")
    np.testing.assert_array_equal(by_value.test_loss.sel(epsilon=1e3), mine.test_loss)


def test_a_swept_study_goes_on_to_the_bit(small, tmp_path):
    study = small(epsilon=(1e-5, 0.1), seeds=(0,))
    whole, _ = carry_out(study, tmp_path / "whole")
    asked, log = itertools.count(1), tmp_path / "left" / "checkpoints" / "measured.log"
    (tmp_path / "left").mkdir()
    with pytest.raises(Interrupted):
        run(
            study,
            tmp_path / "left",
            data_dir=None,
            command="the command",
            console=Console(quiet=True),
            # Before each network, and after each window: here after batch norm's second.
            stop=lambda: 2 if next(asked) > 1 + 5 + 1 + 1 else 0,
        )
    kept = measured.unpack(log.read_bytes())
    assert kept[-1][:2] == ("batch norm", 5)
    again, said = carry_out(study, tmp_path / "left")
    assert "Continuing at step 45 of 80" in said
    xr.testing.assert_identical(untimed(again), untimed(whole))
    seconds = [record for record in kept if "seconds_per_step" in record.measures]
    assert len(seconds) == 4 + 1
    for norm, step, measures in seconds:
        mine = again.seconds_per_step.sel(norm=again.label == norm, step=step)
        assert (mine == measures["seconds_per_step"]).all()


def test_config_and_environment_are_kept(finished):
    dataset, _, folder = finished
    config = json.loads(dataset.attrs["config"])
    kept = json.loads((folder / "config.json").read_text())
    identity = kept.pop("identity")
    assert config == kept
    assert identity["networks"] == ["no norm", "batch norm"]
    assert len(set(identity["programs"].values())) == 2
    assert config["norms"] == {"no norm": None, "batch norm": "Standard()"}
    environment = json.loads(dataset.attrs["environment"])
    assert environment["platform"] == "cpu"
    assert set(environment["versions"]) >= {"python", "jax", "flax", "optax"}
    assert (dataset.attrs["name"], dataset.attrs["data"]) == ("small", "Digits(validation=0)")
    assert dataset.attrs["command"] == "the command"


def test_plain_lines_tell_how_far_it_is(finished):
    _, said, _ = finished
    assert "2 networks x 3 learning rates x 2 seeds, 40 steps each" in said
    assert "80/80 steps" in said
    assert "\x1b" not in said


def test_a_diverged_run_is_marked_and_blank_from_there(small, tmp_path):
    study = small(norms={"no norm": None}, activation="relu", learning_rates=(0.1, 1e25))
    dataset, _ = carry_out(study, tmp_path)
    calm, wild = (dataset.sel(learning_rate=rate) for rate in study.learning_rates)
    assert (calm.diverged_at == -1).all()
    assert (wild.diverged_at > 0).all()
    assert np.isfinite(wild.test_accuracy.sel(step=0)).all()
    assert np.isnan(wild.test_accuracy.sel(step=[20, 40])).all()
    assert np.isnan(wild.train_loss).sel(step=[20, 40]).all()
    assert (wild.test_example_score == -1).all()
    assert np.isfinite(calm.test_accuracy).all()


def test_divergence_is_told_with_its_first_step(small, tmp_path):
    study = small(norms={"no norm": None}, activation="relu", learning_rates=(0.1, 1e25))
    dataset, said = carry_out(study, tmp_path)
    first = dataset.diverged_at.sel(learning_rate=1e25).min().item()
    assert (
        f"no norm: 2 of 4 runs diverged since the last evaluation, the first at step {first} "
        "(learning rate 1e+25, seed" in said
    )
    assert said.count("diverged") == 1


def test_one_line_opens_it_in_xarray_and_pandas(finished):
    *_, folder = finished
    with xr.open_dataset(folder / "metrics.nc") as dataset:
        frame = dataset.test_accuracy.to_dataframe()
    assert frame.index.names == ["norm", "learning_rate", "seed", "step"]
    assert len(frame) == 2 * 3 * 2 * 6
