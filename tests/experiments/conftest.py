"""A study small enough to recompute by hand, and data to train it on."""

import dataclasses
import shutil
import tempfile
from typing import Any

import pytest

from experiments.study import MLP, Digits, Standard, Study
from experiments.study.examples import Examples

SMALL = Study(
    name="small",
    claim="none",
    data=Digits(validation=0),
    norms={"no norm": None, "batch norm": Standard()},
    network=MLP((8, 6), "sigmoid"),
    init_std=0.3,
    optimizer="sgd",
    learning_rates=(0.1, 1.0, 3.0),
    seeds=(0, 7),
    batch_size=16,
    steps=40,
    evaluate_every=20,
)


CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def small():
    """A function that returns the small study with the fields it is given, or the MLP's."""

    def study(**fields: Any) -> Study:
        mlp = {name: fields.pop(name) for name in ("widths", "activation") if name in fields}
        if mlp:
            fields["network"] = dataclasses.replace(SMALL.network, **mlp)
        return dataclasses.replace(SMALL, **fields)

    return study


@pytest.fixture(scope="session")
def digits() -> Examples:
    return Digits(validation=0).load()


@pytest.fixture(scope="module")
def chromium():
    """A browser without a window, driven by Selenium; tests are skipped where there is none."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip("Chromium is not installed: apt-get install chromium chromium-driver")
    from selenium import webdriver

    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options, webdriver.ChromeService(driver))
        yield driver
        driver.quit()
