"""The report in a real browser: it loads in silence, asks for nothing, and its parts move."""

import re
import time

import numpy as np
import pytest
from browsing import (
    NAMELESS,
    PHONE,
    WIDE,
    assert_fits,
    assert_silent,
    click,
    find,
    js,
    line,
    on_wide_screen,
    press,
    until,
    visit,
)
from synthetic import learning, study

from experiments.report.specification import top_of_nines

LARGEST = 2e6


def test_it_loads_in_silence_and_fits_the_screen(browser, page):
    assert page.stat().st_size < LARGEST
    assert_silent(browser, page)
    assert_fits(browser, 12)
    rows = "new Set(drawings.get('gradient_norm').panels.map(p => p.box.top)).size"
    assert js(browser, rows) == (2 if js(browser, "innerWidth") == PHONE else 1)


def test_the_first_figure_is_near(browser):
    top = js(browser, "document.querySelector('#accuracy .plot').getBoundingClientRect().top")
    assert top < 900


def test_a_line_goes_through_the_means(browser):
    """Read back from pixels: the numbers came through the packing and the scales."""
    script = """(d => {
        const { panels } = drawings.get('accuracy'), [panel] = panels;
        const places = d.match(/[\\d.]+ [\\d.]+/g).map(p => p.split(' ').map(Number));
        return places.map(([x, y]) => [panel.scales.x.back(x), panel.scales.y.back(y)]);
    })(arguments[0])"""
    expected = learning(0.97, 30, points=101).mean(0)
    found = np.array(js(browser, script, line(browser, "accuracy")))
    np.testing.assert_allclose(found[:, 0], np.arange(0, 2001, 20), atol=5)
    np.testing.assert_allclose(found[:, 1], 100 * expected, atol=0.4)


@on_wide_screen
def test_axes_end_where_the_specification_says(browser):
    ends = "drawings.get(arguments[0]).panels.map(p => [p.scales.y.low, p.scales.y.high])"
    (accuracy,) = js(browser, ends, "accuracy")
    most = 100 * learning(0.97, 30, points=101).max()
    assert accuracy == pytest.approx([0, top_of_nines(most)], abs=0.01)
    assert len({*map(tuple, js(browser, ends, "gradient_norm"))}) == 1  # layers can be compared
    assert {low for low, _ in js(browser, ends, "gradient_noise")} == {0}


def test_panels_below_each_other_are_alike_and_names_cover_no_lines(browser):
    panels = "drawings.get(arguments[0]).panels"
    box = "p => [p.box.left, p.box.right, p.box.bottom - p.box.top]"
    boxes = js(browser, f"{panels}.map({box})", "distribution")
    assert len(boxes) == 3
    assert boxes == [boxes[0]] * 3
    # A mean of steps ends before its runs do: its name is at the edge, beside them.
    ends = "[...document.querySelectorAll('#steps .end')].map(t => t.getAttribute('x'))"
    edge = js(browser, f"{panels}[0].box.right", "steps")
    assert [float(x) for x in js(browser, ends)] == pytest.approx(
        [] if js(browser, "innerWidth") == PHONE else [edge + 6] * 2
    )


@on_wide_screen
def test_small_numbers_are_short(browser):
    assert js(browser, "[1e-4, 1.25e-5, 0.02, 31415.9].map(v => number(v, { digits: 4 }))") == [
        "1e−4",
        "1.25e−5",
        "0.02",
        "31420",
    ]


@on_wide_screen
def test_densities_have_the_area_one_and_steps_a_geometric_mean(browser):
    density = "panelsOf('distribution').panels[0].marks.find(mark => mark.kind === 'density')"
    heights, edges = js(browser, f"(d => [densityAt(d), [...array(d.edges).values]])({density})")
    assert heights @ np.diff(edges) == pytest.approx(1, abs=0.02)
    curve = "panelsOf('steps').panels[0].marks.find(mark => mark.network === 1)"
    script = "(({ runs, mean }) => [runs.map(run => [...run]), [...mean]])"
    runs, mean = js(browser, f"{script}(summaryOf({curve}))")
    runs, mean = np.array(runs, float), np.array(mean, float)
    assert np.ptp(runs, axis=0)[np.isfinite(mean)].max() > 0
    np.testing.assert_allclose(mean, np.exp(np.log(runs).mean(0)), rtol=1e-6)


def test_the_slider_begins_at_the_start_and_moves_every_figure(browser):
    from selenium.webdriver.common.keys import Keys

    slider, output = find(browser, ".player input"), find(browser, ".player output")
    before = line(browser, "distribution")
    assert output.text == "step 0"
    slider.send_keys(Keys.ARROW_RIGHT)
    assert output.text == "step 20"
    until(lambda: line(browser, "distribution") != before)
    slider.send_keys(Keys.END)
    assert output.text == "step 2000"
    browser.execute_script("figures.forEach(follow)")
    assert "step 2000" in find(browser, "#loss .readout").get_attribute("textContent")


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
    # What is not known comes last, both ways.
    unknown, known = {"text": "never", "number": None}, {"text": "3", "number": 3}
    for sign in (1, -1):
        assert js(browser, "compare(...arguments)", unknown, known, sign) > 0


@on_wide_screen
def test_a_network_is_hidden_in_every_figure(browser):
    from selenium.webdriver.common.keys import Keys

    find(browser, ".key button").send_keys(Keys.SPACE)
    assert line(browser, "accuracy", 0) is None
    assert line(browser, "loss", 0) is None
    assert line(browser, "accuracy", 1)
    assert js(browser, "document.activeElement.getAttribute('aria-pressed')") == "false"
    click(browser, "[name=rate][value='0']")
    assert line(browser, "accuracy", 0) is None  # and stays so


@on_wide_screen
def test_rates_are_chosen_by_key_for_all_figures(browser):
    from selenium.webdriver.common.keys import Keys

    before = {f: line(browser, f) for f in ("accuracy", "loss", "learning_rate")}
    find(browser, "[name=rate]:checked").send_keys(Keys.ARROW_RIGHT)  # from the best to the first
    assert js(browser, "state.rate") == "0"
    after = {f: line(browser, f) for f in before}
    assert after["accuracy"] != before["accuracy"]
    assert after["loss"] != before["loss"]
    assert after["learning_rate"] == before["learning_rate"]  # all rates are in it
    said = find(browser, "#accuracy-says").get_attribute("textContent")
    last = 100 * learning(0.94, 30, points=101)[:, -1].mean()
    expected = f"batch norm goes from 10.0 % (10.0 % to 10.0 %) at step 0 to {last:.1f} %"
    assert expected in said.replace("\N{NO-BREAK SPACE}", " ")


@on_wide_screen
def test_each_network_is_at_its_own_best_rate(browser):
    def said():
        words = find(browser, "#accuracy-says").get_attribute("textContent")
        return [re.search(f"{norm} goes from [^;]*", words)[0] for norm in ("none", "batch norm")]

    none, batch_norm = said()
    click(browser, "[name=rate][value='5']")
    assert said()[0] == none
    assert said()[1] != batch_norm
    click(browser, "[name=rate][value='3']")
    assert said()[0] != none
    assert said()[1] == batch_norm


@on_wide_screen
def test_seeds_axes_and_time_can_be_chosen(browser):
    seeds = "document.querySelectorAll('#accuracy .seed').length"
    assert js(browser, seeds) == 0
    click(browser, "[name=seeds]")
    assert js(browser, seeds) == 10
    ticks = "[...document.querySelectorAll('#accuracy .tick')].map(t => t.textContent)"
    assert "95" in js(browser, ticks)
    click(browser, "[name=even]")
    assert {"0", "20", "40"} <= set(js(browser, ticks))

    def ends(unit):
        browser.execute_script(
            """const select = document.querySelector('[name=x]');
            select.value = arguments[0];
            select.dispatchEvent(new Event('change'));""",
            unit,
        )
        last = [
            float(re.search(r"([\d.]+) [\d.]+$", line(browser, "accuracy", n))[1]) for n in (0, 1)
        ]
        scale = "drawings.get('accuracy').panels[0].scales.x"
        return js(browser, f"arguments[0].map(place => {scale}.back(place))", last)

    assert ends("epoch") == pytest.approx([100, 100], rel=0.01)  # 2000 steps of 60 of 1200
    assert ends("second") == pytest.approx([20, 40], rel=0.01)
    # At equal times the cheaper network has made more steps.
    browser.execute_script("setCursor(50); figures.forEach(follow)")
    curves = "panelsOf('accuracy').panels[0].marks.filter(m => m.kind === 'curve')"
    assert js(browser, f"{curves}.map(m => indexAt(m, steps))") == [50, 25]


@on_wide_screen
def test_pointing_reads_values_and_moves_all_cursors(browser):
    from selenium.webdriver import ActionChains

    plot = find(browser, "#loss .plot")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    ActionChains(browser).move_to_element_with_offset(plot, -150, 0).perform()
    readout = find(browser, "#loss .readout")
    until(lambda: "step 0" not in readout.text)
    assert re.search(r"batch norm\s*0\.\d+\s*0\.\d+ to 0\.\d+", readout.text)
    step = re.search(r"step \d+", readout.text)[0]
    assert find(browser, ".player output").get_attribute("textContent") == step
    browser.execute_script("figures.forEach(follow)")
    assert step in find(browser, "#accuracy .readout").get_attribute("textContent")


@on_wide_screen
def test_a_drag_zooms_and_a_button_shows_all_again(browser):
    from selenium.webdriver import ActionChains

    plot, reset = find(browser, "#accuracy .plot"), find(browser, "#accuracy .reset")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    before = line(browser, "accuracy")
    assert not reset.is_displayed()
    ActionChains(browser).move_to_element(plot).click_and_hold().move_by_offset(
        90, 0
    ).release().perform()
    assert line(browser, "accuracy") != before
    assert reset.is_displayed()
    reset.click()
    assert line(browser, "accuracy") == before
    # A drag that is tall too cuts both axes.
    actions = ActionChains(browser).move_to_element(plot).click_and_hold()
    actions.move_by_offset(90, 60).release().perform()
    low, high = js(browser, "zooms.get('accuracy').y[0]")
    assert 0 < low < high < 99
    reset.click()
    assert not reset.is_displayed()


@on_wide_screen
def test_a_figure_is_read_and_zoomed_by_key(browser):
    from selenium.webdriver.common.keys import Keys

    plot = find(browser, "#gradient_norm .plot")
    browser.execute_script("arguments[0].focus()", plot)
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    said = "arguments[0].getAttribute('aria-valuetext')"
    until(lambda: "hidden 1, step 40" in js(browser, said, plot))
    assert re.search(r"none \d.*; batch norm \d", js(browser, said, plot))
    press(browser, Keys.PAGE_DOWN)
    assert "hidden 2, step 40" in js(browser, said, plot)
    before = line(browser, "gradient_norm")
    press(browser, "+")
    assert line(browser, "gradient_norm") != before
    press(browser, Keys.ESCAPE)
    assert line(browser, "gradient_norm") == before
    plot = find(browser, "#learning_rate .plot")
    browser.execute_script("arguments[0].focus()", plot)
    press(browser, Keys.HOME, Keys.ARROW_RIGHT)
    assert js(browser, said, plot).startswith("learning rate 0.03. none ")


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
    if form == "svg":
        text = saved.read_text(encoding="utf-8")
        assert "batch norm" in text
        assert "var(" not in text
    assert browser.get_log("browser") == []


def test_values_are_chosen(chromium, swept):
    visit(chromium, swept, WIDE)
    assert_silent(chromium, swept)
    assert_fits(chromium, 13)
    names = "chosenNetworks().map((n, _, all) => nameOf(n, all))"
    numbers = "shownNetworks().map(n => n.number)"
    assert (js(chromium, names), js(chromium, numbers)) == (["none", "bn"], [0, 4])
    click(chromium, "[name=momentum][value='0.9']")
    assert js(chromium, numbers) == [0, 2]  # of epsilon the better
    click(chromium, "[name=epsilon][value=all]")
    assert js(chromium, names) == ["none", "bn, epsilon 1", "bn, epsilon 0.1"]
    click(chromium, "[name=momentum][value=all]")
    assert js(chromium, numbers) == [0, 1, 2, 3, 4]


def test_a_budget_is_of_an_arm_whatever_is_chosen(chromium, swept):
    visit(chromium, swept, WIDE)
    said = "document.querySelector('#budget-says').textContent"
    end = "goes from [^;]* at settings tried 1 to [^;]* at settings tried"
    words = rf"none {end} 2; bn {end} 8"
    assert re.search(words, js(chromium, said))
    assert "settings tried 1" in find(chromium, "#budget .readout").get_attribute("textContent")
    click(chromium, "[name=momentum][value='0.9']")
    assert re.search(words, js(chromium, said))
    click(chromium, ".key button")
    assert js(chromium, said).startswith("bn goes from")


def test_long_names_are_not_cut_and_leave_room_to_draw(chromium, tmp_path, without_paper):
    names = ["no norm at all, not one", "batch norm by groups of 8"]
    dataset = study(np.array([[learning(0.9, 6)] * 2] * 2), norms=names)
    page = without_paper(dataset, tmp_path)
    visit(chromium, page, WIDE)
    named = "document.querySelectorAll(arguments[0]).length"
    assert (js(chromium, named, "#accuracy .end"), js(chromium, named, "#loss .end")) == (2, 0)
    visit(chromium, page, PHONE)
    titles = "[...document.querySelectorAll('#percentiles .title')].map(t => t.textContent)"
    assert js(chromium, titles) == names
    assert_fits(chromium, 12)


def test_failed_runs_are_crosses_and_counted(chromium, tmp_path, without_paper):
    dataset = study(np.array([[learning(0.9, 6)] * 2, [learning(0.97, 20)] * 2]))
    lost = {"norm": "none", "learning_rate": 1.0, "seed": [2, 3]}
    dataset.test_accuracy.loc[{**lost, "step": slice(200, None)}] = np.nan
    dataset.diverged_at.loc[lost] = 200
    visit(chromium, without_paper(dataset, tmp_path), WIDE)
    assert_silent(chromium, tmp_path / "report.html")
    second = "document.querySelectorAll('#learning_rate .cross title')[1].textContent"
    said = "rate 1, seed 3: its loss stopped being finite at step 200"
    assert js(chromium, second) == said
    assert "2 of 5" in find(chromium, "#learning_rate svg").get_attribute("textContent")
    rows = find(chromium, "#learning_rate .readout").get_attribute("innerText").splitlines()
    assert [("2 did not learn" in row) for row in rows[-2:]] == [True, False]
    # What diverged is in no line: three seeds are left.
    click(chromium, "[name=rate][value='1']")
    curve = "panelsOf('accuracy').panels[0].marks.find(mark => mark.runs)"
    assert js(chromium, f"summaryOf({curve}).count[40]") == 3


@pytest.mark.parametrize("width", [PHONE, WIDE])
def test_a_comparison(chromium, comparison, width):
    visit(chromium, comparison, width)
    assert_silent(chromium, comparison)
    assert_fits(chromium, 2)
    assert js(chromium, NAMELESS) == []
    gains = chromium.find_element("css selector", ".gains")
    assert "+10.0" in gains.text
    shown = js(
        chromium,
        "[...document.querySelectorAll('#accuracy .line')].map(l => l.getAttribute('stroke'))",
    )
    assert shown == ["var(--series-0)", "var(--series-1)"] * 2
    # The study that ends early is named at the edge as well, where no other line is.
    panel = "drawings.get('accuracy').panels[0]"
    edge = js(chromium, f"{panel}.box.right - 0.05 * ({panel}.box.right - {panel}.box.left)")
    ends = js(
        chromium,
        "[...document.querySelectorAll('#accuracy .end')].map(t => Number(t.getAttribute('x')))",
    )
    assert len(ends) == (4 if width == WIDE else 0)
    assert all(x > edge for x in ends)
