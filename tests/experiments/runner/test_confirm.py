"""The chosen settings on fresh seeds: which are trained, when, and what is said of them."""

import json

import numpy as np
import pytest
import synthetic

from experiments.__main__ import main
from experiments.report.arms import chosen_settings
from experiments.report.confirmation import decides, summarize_confirmation
from experiments.report.findings import findings
from experiments.report.summary import summarize
from experiments.report.tiles import arm_tiles, tiles
from experiments.runner import confirm, results
from experiments.runner.confirm import Confirmation, Plan, Setting, make_plan
from experiments.runner.folder import PAGE, FolderError
from experiments.study.config import as_json, networks_of
from experiments.study.values import ConfigError

# By seed, from 0 on: what a second norm gains.
CLEAR = [0.03, 0.031, 0.029, 0.03, 0.031, 0.03, 0.03, 0.03, 0.03]
UNCLEAR = [0.03, -0.03, 0.04, -0.01, 0.0, 0.02, -0.04, 0.01, 0.03]


@pytest.fixture
def study(small):
    return small(seeds=(0, 2), learning_rates=(0.1, 1.0))


class Trainer:
    """Writes what a run would have measured, and counts the runs."""

    def __init__(self, gains):
        self.gains, self.trained = gains, []

    def __call__(self, study, place, **_):
        self.trained.append(([*study.norms], study.learning_rates, study.seeds))
        names, rates = networks_of(study), study.learning_rates
        ends = np.array(
            [
                [
                    [0.9 + 0.01 * rate + (label != "no norm") * self.gains[s] for s in study.seeds]
                    for rate in rates
                ]
                for label, _ in names.values()
            ]
        )
        curve = np.stack([0.1 + 0 * ends, ends], -1)
        dataset = synthetic.study(curve, norms=[*names], rates=rates, every=study.steps)
        dataset = dataset.assign_coords({"seed": [*study.seeds]} | results._swept(study))
        dataset.attrs["config"] = json.dumps(as_json(study))
        place.mkdir(parents=True, exist_ok=True)
        results.save_config(as_json(study), {}, place)
        results.save(dataset, place)


def carry_out(study, folder, plan, gains):
    trainer = Trainer(gains)
    if not (folder / results.METRICS).exists():
        trainer(study, folder)
    trainer.trained.clear()
    how = Confirmation(plan, chosen_settings, decides)
    confirm.confirm(study, folder, how, trainer, lambda _: None)
    return trainer.trained


def test_the_best_setting_of_each_norm_is_trained_on_seeds_that_chose_nothing(study, tmp_path):
    trained = carry_out(study, tmp_path, Plan(3), CLEAR)
    assert trained == [(["no norm"], (1.0,), (1, 3, 4)), (["batch norm"], (1.0,), (1, 3, 4))]
    measured = confirm.confirmed(tmp_path)
    assert measured is not None
    assert (measured.norm.values.tolist(), measured.seed.values.tolist()) == (
        ["no norm", "batch norm"],
        [1, 3, 4],
    )


def test_a_setting_holds_the_value_of_what_has_several(small, tmp_path):
    study = small(seeds=(0, 1), learning_rates=(0.1,), init_std=(0.3, 0.5))
    made = confirm.study_of(study, "no norm", Setting({"init_std": 0.5}, 0.1), (2, 3))
    assert [*networks_of(made)] == ["no norm, init_std=0.5"]
    assert (made.seeds, made.learning_rates, made.steps) == ((2, 3), (0.1,), study.steps)
    trained = carry_out(study, tmp_path, Plan(2), CLEAR)
    assert [labels for labels, _, _ in trained] == [["no norm"], ["batch norm"]]
    measured = confirm.confirmed(tmp_path)
    assert measured is not None
    assert measured.norm.values.tolist() == ["no norm", "batch norm"]


def test_a_second_look_is_taken_only_where_the_first_has_not_decided(study, tmp_path):
    assert len(carry_out(study, tmp_path / "clear", Plan(3, 6), CLEAR)) == 2
    trained = carry_out(study, tmp_path / "unclear", Plan(3, 6), UNCLEAR)
    assert [seeds for _, _, seeds in trained] == [(1, 3, 4)] * 2 + [(5, 6, 7)] * 2
    measured = confirm.confirmed(tmp_path / "unclear")
    assert measured is not None
    assert measured.seed.values.tolist() == [1, 3, 4, 5, 6, 7]
    np.testing.assert_allclose(
        measured.test_accuracy[1, :, -1] - measured.test_accuracy[0, :, -1],
        [UNCLEAR[seed] for seed in measured.seed.values],
        atol=1e-6,
    )


def test_seeds_that_are_there_are_kept_and_a_report_that_says_less_goes(study, tmp_path):
    carry_out(study, tmp_path, Plan(3, 6), UNCLEAR)
    (tmp_path / PAGE).touch()
    assert carry_out(study, tmp_path, Plan(3, 6), UNCLEAR) == []
    assert (tmp_path / PAGE).exists()
    (confirm.folder_of(tmp_path, 1, 1) / results.METRICS).unlink()
    trained = carry_out(study, tmp_path, Plan(3, 6), UNCLEAR)
    assert trained == [(["batch norm"], (1.0,), (5, 6, 7))]
    assert not (tmp_path / PAGE).exists()


def test_looks_that_were_not_planned_are_refused(study, tmp_path):
    carry_out(study, tmp_path, Plan(3), UNCLEAR)
    with pytest.raises(FolderError, match="is confirmed with --confirm 3, not --confirm 3 --until"):
        carry_out(study, tmp_path, Plan(3, 6), UNCLEAR)


def test_a_plan_has_an_interval_and_two_looks(small):
    assert make_plan(small(), None, None) is None
    assert make_plan(small(), None, 9) == Plan(2, 9)
    assert make_plan(small(), 4, 9) == Plan(4, 9)
    with pytest.raises(ConfigError, match="--confirm 1: needs 2 seeds or more"):
        make_plan(small(), 1, None)
    with pytest.raises(ConfigError, match="--until-decided 2: needs more seeds than the 2"):
        make_plan(small(), None, 2)


@pytest.mark.parametrize(("plan", "level"), [(Plan(3), 0.95), (Plan(3, 6), 0.975)])
def test_what_fresh_seeds_say_is_what_is_quoted(study, tmp_path, plan, level):
    carry_out(study, tmp_path, plan, CLEAR)
    measured, dataset = confirm.confirmed(tmp_path), results.load(tmp_path)
    assert measured is not None
    confirmed = summarize_confirmation(measured, plan, chosen_settings(dataset))
    assert confirmed["settings"] == {"no norm": "rate 1", "batch norm": "rate 1"}
    difference = confirmed["comparisons"][0]["accuracy_difference"]
    assert difference["mean"] == pytest.approx(np.mean([CLEAR[s] for s in (1, 3, 4)]), rel=1e-4)
    # t(0.975) and t(0.9875) with 2 degrees of freedom, from a printed table.
    t = {0.95: 4.303, 0.975: 6.205}[level]
    half = t * np.std([CLEAR[s] for s in (1, 3, 4)], ddof=1) / np.sqrt(3)
    assert difference["high"] - difference["mean"] == pytest.approx(half, rel=1e-2)
    assert (difference["verdict"], confirmed["level"]) == ("better", level)
    summary = {**summarize(dataset), "confirmation": confirmed}
    shown = findings(summary)["shows"]
    assert shown.startswith("On 3 seeds that chose nothing, each at its best setting (“batch norm”")
    assert f"({100 * level:g} % interval" in shown
    (comparison,) = summary["comparisons"]
    higher, _, stable = tiles(summary, comparison)
    assert higher.number == "+3.07 points"
    assert higher.interval.startswith(f"{100 * level:g} % interval +")
    assert (higher.source, stable.source) == ("", "of the study itself, 2 seeds")


def test_an_arm_keeps_its_third_tile_which_says_whose_it_is(small, tmp_path):
    study = small(seeds=(0, 1), learning_rates=(0.1, 1.0), init_std=(0.3, 0.5))
    carry_out(study, tmp_path, Plan(3), CLEAR)
    measured, dataset = confirm.confirmed(tmp_path), results.load(tmp_path)
    assert measured is not None
    # Stuck at chance, of the baseline: both seeds at one of four settings.
    dataset.test_accuracy.loc[{"norm": "no norm, init_std=0.3", "learning_rate": 0.1}] = 0.1
    confirmed = summarize_confirmation(measured, Plan(3), chosen_settings(dataset))
    summary = {**summarize(dataset), "confirmation": confirmed}
    (arm,) = summary["arms"]
    higher, _, learns = arm_tiles(summary, arm)
    assert higher.number == "+3.00 points"  # of the fresh seeds 2, 3 and 4
    assert learns.question == "Does it learn at more settings?"
    assert (learns.answer, learns.number) == ("Yes", "8 of 8 against 6 of 8 runs learned")
    assert learns.source == "of the study itself, 2 seeds"
    (_, _, alone) = arm_tiles({**summary, "confirmation": None}, arm)
    assert alone == learns._replace(source="")


def test_the_command_confirms_and_reports(study, tmp_path, monkeypatch, capsys):
    trainer = Trainer(CLEAR)
    monkeypatch.setattr("experiments.runner.run.run", trainer)
    monkeypatch.setattr("experiments.report.figures.FIGURES", {})
    config = tmp_path / "config.py"
    config.write_text(
        "from experiments.study import MLP, Digits, Standard, Study\n"
        "study = Study(name='n', claim='c', data=Digits(), "
        "norms={'no norm': None, 'bn': Standard()},"
        "network=MLP((3,), 'relu'), optimizer='sgd', learning_rates=(0.1,), seeds=(0, 1),"
        "batch_size=2, steps=4, evaluate_every=4)\n"
    )
    main(["run", str(config), "--out", str(tmp_path / "out"), "--confirm", "4"])
    assert [seeds for _, _, seeds in trainer.trained] == [(0, 1), (2, 3, 4, 5), (2, 3, 4, 5)]
    said = capsys.readouterr().out
    assert "“bn” beside “no norm”, each at its best rate, on 4 fresh seeds" in said
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["confirmation"]["seeds"] == [2, 3, 4, 5]
