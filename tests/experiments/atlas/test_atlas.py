"""The atlas: its grid, what a run computes, its table, and its page in a browser."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

from experiments.atlas import grid, page, table
from experiments.atlas.train import CHANCE, TEST, Digits, Ends, run, run_all
from experiments.commands import atlas
from experiments.papers.tools.mlp import MLP
from experiments.study.data import load
from experiments.study.train import key_of

PROGRAMS = [
    grid.Program(1, 8, "relu", "no norm"),
    grid.Program(1, 8, "relu", "batch norm"),
    grid.Program(1, 32, "relu", "batch norm"),
]


def test_the_grid_is_as_large_as_it_is_called():
    programs = grid.programs()
    assert len(set(programs)) == len(programs) <= 60
    assert len(programs) * len(grid.LEARNING_RATES) * len(grid.INIT_SCALES) >= 500
    assert {program.norm for program in programs} == set(grid.NORMS)
    at_three = {p.batch_size for p in programs if p.norm == "renorm"}
    assert (min(at_three), max(at_three)) == (2, 1024)
    for program in programs:  # whatever is compared with batch norm has it beside it
        assert program._replace(norm="batch norm") in programs


class _Network(nn.Module):
    """The same network by hand, Flax's own layers."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(grid.WIDTH, use_bias=False, name="hidden")(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.0, name="norm")(x)
        return nn.Dense(10, name="output")(nn.relu(x))


def test_a_run_is_a_loop_by_hand(monkeypatch):
    monkeypatch.setattr(grid, "STEPS", 6)
    data = load("digits")
    images = np.concatenate([data.train_images, data.test_images]).reshape(-1, 64)
    labels = np.concatenate([data.train_labels, data.test_labels])
    rate, scale, seed = np.float32(0.5), np.float32(0.3), np.uint32(4)
    digits = Digits(np.float32(images / data.brightest), labels)
    ends = jax.jit(partial(run, PROGRAMS[2]))(digits, rate, scale, seed)

    order = jax.random.permutation(key_of(seed, 0), len(images))
    x, y = jnp.float32(images / data.brightest)[order], jnp.asarray(labels)[order]
    x_test, y_test, x, y = x[:TEST], y[:TEST], x[TEST:], y[TEST:]
    he = jax.nn.initializers.he_normal()
    made = MLP((grid.WIDTH,), jax.nn.relu, he, grid.NORMS["batch norm"]).init(
        key_of(seed, 1), x[:2], use_running_average=True
    )["params"]
    width = grid.WIDTH
    params = {
        "hidden": {"kernel": scale * made["hidden_1"]["kernel"].T},
        "norm": {"scale": jnp.ones(width), "bias": jnp.zeros(width)},
        "output": {"kernel": scale * made["output"]["kernel"].T, "bias": jnp.zeros(10)},
    }
    first = {"norm": {"mean": jnp.zeros(width), "var": jnp.ones(width)}}

    @jax.jit
    def in_training(params, x):
        variables = {"params": params, "batch_stats": first}
        return _Network().apply(variables, x, train=True, mutable=["batch_stats"])

    @jax.jit
    def update(params, rows):
        def loss(params):
            scores, _ = in_training(params, x[rows])
            return optax.softmax_cross_entropy_with_integer_labels(scores, y[rows]).mean()

        return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params))

    def right(scores, labels):
        return float(jnp.mean(jnp.argmax(scores, axis=1) == labels))

    for step in range(6):
        params = update(params, jax.random.randint(key_of(seed, 2, step), (32,), 0, len(x)))
    variables = {"params": params, **in_training(params, x)[1]}
    test, train = (_Network().apply(variables, images, train=False) for images in (x_test, x))
    batches = [
        right(in_training(params, x[i : i + 32])[0], y[i : i + 32]) for i in range(0, 1408, 32)
    ]
    ends = Ends(*map(float, ends))
    assert ends.test == pytest.approx(right(test, y_test), abs=0.006)
    assert ends.train == pytest.approx(right(train, y), abs=0.002)
    assert ends.train_batch == pytest.approx(np.mean(batches), abs=0.002)
    assert ends.test > 2 * CHANCE
    assert abs(ends.test_running - ends.test) > 0.02  # after six steps at momentum 0.99


@pytest.fixture
def made_up(monkeypatch):
    """A small grid, and ends that are drawn instead of trained."""
    monkeypatch.setattr(grid, "programs", lambda: PROGRAMS)
    monkeypatch.setattr(grid, "LEARNING_RATES", (0.1, 1.0))
    monkeypatch.setattr(grid, "INIT_SCALES", (1.0, 3.0))
    monkeypatch.setattr(grid, "SEEDS", 3)
    trained = []

    def run_all(program):
        trained.append(program)
        rng = np.random.default_rng(abs(hash(program.norm)) % 100 + program.batch_size)
        return Ends(*rng.integers(0, 361, (4, 2, 2, 3)) / 360)

    monkeypatch.setattr("experiments.atlas.train.run_all", run_all)
    return trained


def test_what_the_table_has_is_not_trained_again(made_up, tmp_path, monkeypatch):
    atlas.main(["--out", str(tmp_path)])
    assert made_up == PROGRAMS
    path = tmp_path / table.TABLE
    whole, shown = path.read_text(), (tmp_path / page.PAGE).read_text()
    frame = pd.read_csv(path, comment="#")
    assert len(frame) == 3 * 2 * 2 * 3
    assert list(frame.columns[-4:]) == list(Ends._fields)
    # Stopped after the first: only the others are trained, and the table is the same.
    table.write(path, {PROGRAMS[0]: table.read(path)[PROGRAMS[0]]})
    made_up.clear()
    atlas.main(["--out", str(tmp_path)])
    assert made_up == PROGRAMS[1:]
    assert path.read_text() == whole
    assert (tmp_path / page.PAGE).read_text() == shown
    assert len(shown) < 2e6

    monkeypatch.setattr(grid, "STEPS", 7)
    with pytest.raises(SystemExit) as ended:
        atlas.main(["--out", str(tmp_path)])
    assert ended.value.code == 2
    assert path.read_text() == whole


def _expected(frame, norm, batch_size, seeds=3):
    """Of each seed, at the setting that the other seeds choose by test accuracy."""
    part = frame[(frame.norm == norm) & (frame.batch_size == batch_size)]
    by_setting = part.pivot_table("test", ["learning_rate", "init_scale"], "seed")
    chosen = [by_setting.drop(columns=seed).mean(axis=1).idxmax() for seed in range(seeds)]
    return np.array([by_setting.loc[setting, seed] for seed, setting in enumerate(chosen)])


def test_the_page_shows_what_the_table_has(made_up, tmp_path, chromium):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    atlas.main(["--out", str(tmp_path)])
    frame = pd.read_csv(tmp_path / table.TABLE, comment="#")
    chromium.get(f"{(tmp_path / page.PAGE).as_uri()}#batch_size=8")
    gain = 100 * (_expected(frame, "batch norm", 8) - _expected(frame, "no norm", 8))
    cells = chromium.find_elements(By.CSS_SELECTOR, "#map td button")
    text = cells[0].text.replace("−", "-").split("\n")
    assert float(text[0]) == pytest.approx(gain.mean(), abs=0.11)
    low, high = map(float, text[1].split(" to "))
    half = 4.303 * gain.std(ddof=1) / np.sqrt(3)
    assert (low, high) == pytest.approx((gain.mean() - half, gain.mean() + half), abs=0.3)
    cells[0].click()
    told = chromium.find_element(By.ID, "cell").text.replace("−", "-")
    seeds = [float(one) for one in told.split("Seeds: ")[1].split(". ")[0].split(", ")]
    assert seeds == pytest.approx(gain, abs=0.11)

    for key, value in {"measure": "gap", "learning_rate": "1", "init_scale": "3"}.items():
        Select(chromium.find_element(By.CSS_SELECTOR, f"[data-key={key}]")).select_by_value(value)
    here = (frame.learning_rate == 1) & (frame.init_scale == 3) & (frame.norm == "batch norm")
    gap = 100 * (frame.train - frame.test)[here & (frame.batch_size == 8)].mean()
    shown = chromium.find_element(By.CSS_SELECTOR, "#map td button").text.replace("−", "-")
    assert float(shown.split("\n")[0]) == pytest.approx(gap, abs=0.11)
    # The address keeps what is shown.
    address = chromium.current_url
    caption = chromium.find_element(By.CSS_SELECTOR, "#map caption").text
    chromium.get("about:blank")
    chromium.get(address)
    assert chromium.find_element(By.CSS_SELECTOR, "#map caption").text == caption
    assert [e for e in chromium.get_log("browser") if e["level"] == "SEVERE"] == []


def test_every_question_has_an_answer(tmp_path, chromium):
    """With the whole grid: no question shows an empty map."""
    from selenium.webdriver.common.by import By

    shape = (len(grid.LEARNING_RATES), len(grid.INIT_SCALES), grid.SEEDS)
    rng = np.random.default_rng(0)
    measured = {program: Ends(*rng.random((4, *shape))) for program in grid.programs()}
    page.write(tmp_path / page.PAGE, measured, ["Date: </script> never"])
    chromium.get((tmp_path / page.PAGE).as_uri())
    buttons = chromium.find_elements(By.CSS_SELECTOR, "#questions button")
    assert len(buttons) == 7
    for button in buttons:
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert len(chromium.find_elements(By.CSS_SELECTOR, "#map td button")) >= 6, button.text
    assert chromium.find_elements(By.CSS_SELECTOR, "#conditions li")[0].text.startswith("Date: </s")
    assert [e for e in chromium.get_log("browser") if e["level"] == "SEVERE"] == []


def test_a_run_that_does_not_stay_finite_counts_as_guessing(monkeypatch):
    monkeypatch.setattr(grid, "STEPS", 30)
    monkeypatch.setattr(grid, "LEARNING_RATES", (1e30,))
    monkeypatch.setattr(grid, "INIT_SCALES", (3.0,))
    monkeypatch.setattr(grid, "SEEDS", 2)
    ends = run_all(PROGRAMS[0])
    assert ends.test.shape == (1, 1, 2)
    np.testing.assert_array_equal(ends.test, np.float32(CHANCE))
