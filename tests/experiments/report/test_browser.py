"""The report in a real browser: it loads in silence, asks for nothing, and its parts move."""

import base64
import json
import time

import numpy as np
import pytest
from synthetic import keep, learning, study

from experiments.report.comparison import write_comparison
from experiments.report.write import write_report
from experiments.study.measure import BINS

LARGEST, PHONE, WIDE = 6e6, 390, 1440


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a study of the size of those in `configs`."""
    rates = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]
    accuracy = [
        [learning(0.9 - 0.1 * abs(i - 5), 6, points=101) for i in range(7)],
        [learning(0.97 - 0.01 * abs(i - 3), 30, points=101) for i in range(7)],
    ]
    folder = tmp_path_factory.mktemp("study")
    dataset = study(np.array(accuracy), rates=rates, layers=4, every=20)
    return write_report(keep(dataset, folder))


@pytest.fixture(params=[PHONE, WIDE], ids=["phone", "wide"])
def browser(request, chromium, page):
    """A browser that has opened the page and drawn all of it."""
    return visit(chromium, page, request.param)


def visit(driver, page, width):
    media(driver, "light")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for log in ("browser", "performance"):
        driver.get_log(log)  # what other pages did is forgotten
    driver.get(page.as_uri())
    driver.execute_script("figures.forEach(draw)")
    return driver


on_wide_screen = pytest.mark.parametrize("browser", [WIDE], ids=["wide"], indirect=True)


def media(driver, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def find(driver, selector):
    return driver.find_element("css selector", selector)


def click(driver, selector, inside=None):
    driver.execute_script("arguments[0].click()", find(inside or driver, selector))


def drawn(driver, figure, expression):
    """What `expression` is of a figure's plot."""
    return driver.execute_script(f"return document.querySelector('#{figure} .plot').{expression}")


def until(condition):
    for _ in range(100):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within five seconds")


def assert_silent(browser, page):
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [e["params"]["request"]["url"] for e in events if e["method"].endswith("WillBeSent")]
    assert [url for url in sent if not url.startswith(("data:", "blob:"))] == [page.as_uri()]


def test_it_loads_in_silence_and_asks_for_nothing(browser, page):
    assert page.stat().st_size < LARGEST
    assert_silent(browser, page)


def assert_fits(browser, figures):
    width = browser.execute_script("return innerWidth")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    right = "return [...document.querySelectorAll('.main-svg')].map(s => s.getBoundingClientRect())"
    boxes = browser.execute_script(right)
    assert len(boxes) >= figures
    assert all(box["left"] >= 0 and box["right"] <= width for box in boxes)


@pytest.mark.parametrize("width", [PHONE, WIDE])
def test_a_comparison(chromium, tmp_path, width):
    folders = [tmp_path / name for name in ("one", "two")]
    rates = [0.1, 1.0]
    for folder, gained in zip(folders, (0.1, -0.1)):
        accuracy = [[learning(0.8 + added, 6)] * 2 for added in (0, gained)]
        keep(study(np.array(accuracy), rates=rates), folder)
    page = write_comparison(folders, tmp_path / "comparison.html")
    visit(chromium, page, width)
    assert_silent(chromium, page)
    assert_fits(chromium, 3)
    shown = drawn(chromium, "gain", "querySelector('.cartesianlayer').textContent")
    assert "+10.0" in shown


def test_everything_fits_the_screen(browser):
    assert_fits(browser, 11)
    width = browser.execute_script("return innerWidth")
    columns = drawn(browser, "gradient_norm", "layout.grid.columns")
    assert columns == (1 if width == PHONE else 4)


def test_the_slider_moves_the_figure(browser):
    from selenium.webdriver.common.keys import Keys

    def peaks():
        heights = drawn(browser, "distribution", "_fullData.map(t => [...t.y])")
        return [int(np.argmax(y)) for y in heights[:6]]

    path = "querySelector('.js-line').getAttribute('d')"
    slider, output = find(browser, ".player input"), find(browser, ".player output")
    before = drawn(browser, "distribution", path)
    assert output.text == "step 2000"
    assert peaks() == [(100 + i) % BINS for i in (0, 1, 1, 2, 2, 3)]
    slider.send_keys(Keys.HOME)
    assert output.text == "step 0"
    assert peaks() == [0, 1, 1, 2, 2, 3]
    assert drawn(browser, "distribution", path) != before
    slider.send_keys(Keys.ARROW_RIGHT)
    assert output.text == "step 20"
    assert peaks() == [1, 2, 2, 3, 3, 4]


@on_wide_screen
def test_it_plays(browser):
    button, output = find(browser, ".player button"), find(browser, ".player output")
    button.click()
    assert button.text == "Pause"
    until(lambda: output.text not in ("step 0", "step 2000"))
    button.click()
    assert button.text == "Play"
    paused = output.text
    time.sleep(0.3)
    assert output.text == paused


def test_tables_sort_both_ways(browser):
    def column():
        script = (
            "return [...document.querySelectorAll('table:has(button)')][0].tBodies[0].innerText"
        )
        return [float(row.split("\t")[1]) for row in browser.execute_script(script).splitlines()]

    # Numbers, not words: 10 comes after 3.
    click(browser, "table:has(button) th:nth-child(2) button")
    header = find(browser, "table:has(button) th:nth-child(2)")
    assert header.get_attribute("aria-sort") == "ascending"
    assert column() == sorted([0.01, 0.03, 0.1, 0.3, 1, 3, 10] * 2)
    click(browser, "table:has(button) th:nth-child(2) button")
    assert header.get_attribute("aria-sort") == "descending"
    assert column() == sorted([0.01, 0.03, 0.1, 0.3, 1, 3, 10] * 2, reverse=True)


def test_a_legend_hides_a_network_with_its_band(browser):
    from selenium.webdriver import ActionChains

    toggle = find(browser, "#accuracy .legendtoggle")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", toggle)
    ActionChains(browser).click(toggle).perform()
    hidden = "data.map(t => t.visible ?? true)"
    first_hidden = ["legendonly", "legendonly", True, True]
    until(lambda: drawn(browser, "accuracy", hidden) == first_hidden)
    # What is hidden stays so when other rates, or other colours, are chosen.
    click(browser, "[name=rates][value='0']")
    shown = drawn(browser, "accuracy", "_fullData.map(t => t.visible)")
    assert shown == first_hidden


@on_wide_screen
def test_pointing_at_a_curve_says_its_values(browser):
    from selenium.webdriver import ActionChains

    panel = find(browser, "#accuracy .nsewdrag")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", panel)
    ActionChains(browser).move_to_element(panel).perform()
    said = "querySelector('.hoverlayer').textContent"
    until(lambda: drawn(browser, "accuracy", said))
    text = drawn(browser, "accuracy", said)
    assert "batch norm" in text
    assert " to " in text
    assert "%" in text


@on_wide_screen
def test_rates_are_chosen_for_all_figures(browser):
    curve = "_fullData.map(t => [...t.y])"
    before = {f: drawn(browser, f, curve) for f in ("accuracy", "loss", "learning_rate")}
    click(browser, "[name=rates][value='0']")
    after = {f: drawn(browser, f, curve) for f in before}
    assert after["accuracy"] != before["accuracy"]
    assert after["loss"] != before["loss"]
    assert after["learning_rate"] == before["learning_rate"]  # all rates are in it


@on_wide_screen
def test_figures_follow_the_dark_and_paper_does_not(browser):
    paper = "layout.paper_bgcolor"
    assert drawn(browser, "accuracy", paper) == "#ffffff"
    media(browser, "dark")
    until(lambda: drawn(browser, "accuracy", paper) == "#14171b")
    assert drawn(browser, "accuracy", "data.at(-1).line.color") == "#4aa8e0"
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert drawn(browser, "accuracy", paper) == "#ffffff"
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert drawn(browser, "accuracy", paper) == "#14171b"


@on_wide_screen
def test_it_prints(browser):
    printed = browser.execute_cdp_cmd("Page.printToPDF", {})
    assert len(base64.b64decode(printed["data"])) > 50_000


@on_wide_screen
@pytest.mark.parametrize("form", ["svg", "png"])
def test_every_figure_can_be_saved(browser, tmp_path, form):
    place = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", place)
    for figure in browser.find_elements("css selector", "figure")[:2]:
        click(browser, f".save [value={form}]", figure)
    until(lambda: len(list(tmp_path.glob(f"*.{form}"))) == 2)
    (saved,) = tmp_path.glob(f"*-accuracy.{form}")
    start = saved.read_bytes()[:8]
    assert start.startswith(b"<svg" if form == "svg" else b"\x89PNG")
    assert browser.get_log("browser") == []
