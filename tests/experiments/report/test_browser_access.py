"""The report for who sees little, uses no mouse, or reads it on paper; in a real browser."""

import base64
import re
import time

import numpy as np
import pytest
from browsing import (
    NAMELESS,
    PHONE,
    WIDE,
    click,
    faults,
    find,
    js,
    media,
    on_wide_screen,
    press,
    until,
    visit,
)
from synthetic import learning, study

SHEET = 718  # pixels of A4 within Chromium's margins


def luminance(colour):
    channels = np.array([int(x) for x in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@on_wide_screen
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrasts(browser, scheme):
    media(browser, scheme)
    probe = """(() => {
        const probe = document.body.appendChild(document.createElement('i'));
        const found = {};
        const numbered = [0, 1, 2, 3, 4, 5, 6].flatMap(i => [`series-${i}`, `word-${i}`]);
        for (const name of ['ink', 'muted', 'paper', 'shade', ...numbered]) {
            probe.style.color = `var(--${name})`;
            found[name] = getComputedStyle(probe).color;
        }
        probe.remove();
        return found;
    })()"""
    colours = js(browser, probe)
    assert (
        luminance(colours["paper"]) > 0.9
        if scheme == "light"
        else luminance(colours["paper"]) < 0.02
    )
    series = [colours[f"series-{i}"] for i in range(7)]
    assert min(contrast(colour, colours["paper"]) for colour in series) >= 3
    words = [colours[f"word-{i}"] for i in range(7)]
    assert min(contrast(colour, colours["paper"]) for colour in words) >= 4.5
    for text in ("ink", "muted"):
        assert min(contrast(colours[text], colours[back]) for back in ("paper", "shade")) >= 4.5
    # And these are the colours that lines and their names have.
    drawn = "getComputedStyle(document.querySelector(arguments[0])).{}"
    line = "#accuracy .line[data-network='0']"
    assert js(browser, drawn.format("stroke"), line) == series[0]
    assert js(browser, drawn.format("fill"), "#accuracy .end") in words[:2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(browser, scheme):
    media(browser, scheme)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert faults(browser) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, WIDE])
def test_axe_finds_no_fault_in_a_comparison(chromium, comparison, width, scheme):
    media(visit(chromium, comparison, width), scheme)
    chromium.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert faults(chromium) == []


def test_every_control_has_a_name_and_every_figure_words(browser):
    assert js(browser, NAMELESS) == []
    ids = js(browser, "[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    for figure in browser.find_elements("css selector", "figure"):
        title, says = (
            find(browser, f"#{figure.get_attribute(name)}").get_attribute("textContent")
            for name in ("aria-labelledby", "aria-describedby")
        )
        assert title
        if figure.get_attribute("id") != "distribution":  # whose slider says its values
            said = r"none(: 15 %)? goes from .*\d.* to .*\d.*batch norm(: 15 %)? goes from"
            assert re.search(said, says, re.S)
        slider = find(figure, "[role=slider]")
        assert slider.get_attribute("aria-valuetext")
        assert slider.get_attribute("aria-valuenow") is not None
    # Nothing speaks by itself while the slider plays.
    assert js(browser, "[...document.querySelectorAll('[aria-live]')].map(e => e.ariaLive)") == [
        "off"
    ]
    assert (
        js(browser, "document.querySelectorAll('[role=status], [role=alert], [role=log]').length")
        == 0
    )


@on_wide_screen
def test_tab_reaches_every_control_in_the_order_of_the_page(browser):
    from selenium.webdriver.common.keys import Keys

    browser.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
    seen = []
    for _ in range(25):
        press(browser, Keys.TAB)
        seen.append(
            js(
                browser,
                """(e => e.name || e.dataset.network || e.getAttribute('aria-label')
            || e.getAttribute('href') || e.textContent)(document.activeElement)""",
            )
        )
    wanted = [
        "rate",
        "seeds",
        "even",
        "x",
        "0",
        "1",
        "Play",
        "Step of training",
        "Values of: Test accuracy while training",
        "Its numbers",
        "Values of: What every norm gives out, as training goes on",
        "#loss",
    ]
    places = [seen.index(name) for name in wanted]
    assert places == sorted(places)


@on_wide_screen
def test_the_numbers_of_a_figure_are_a_table(browser):
    click(browser, "#accuracy .numbers summary")
    until(lambda: find(browser, "#accuracy .numbers").text.count("\n") > 5)
    table = find(browser, "#accuracy .numbers table").text
    assert "none batch norm" in table
    assert re.search(r"2000 \d+\.\d % \(\d+\.\d % to \d+\.\d %\)", table)


def test_the_bar_covers_no_anchor(browser):
    browser.execute_script("document.querySelector('nav [href=\"#steps\"]').click()")
    until(lambda: js(browser, "scrollY") > 500)
    gap = """document.querySelector('#steps-title').getBoundingClientRect().top
        - document.querySelector('.choices').getBoundingClientRect().bottom"""
    time.sleep(0.2)
    assert js(browser, gap) >= 0


def test_wide_tables_do_not_shrink_a_printed_page(chromium, tmp_path, without_paper):
    names = [f"batch norm, epsilon={10.0**-i}" for i in range(4)]
    dataset = study(np.array([[learning(0.9, 6)]] * 4), norms=names, rates=[0.1])
    visit(chromium, without_paper(dataset, tmp_path), SHEET)
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    chromium.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert js(chromium, "document.documentElement.scrollWidth") <= SHEET
    headings = "[...document.querySelectorAll('th button')].map(b => getComputedStyle(b).display)"
    assert {*js(chromium, headings)} == {"contents"}  # or they are not there on the next sheet
    chromium.execute_script("dispatchEvent(new Event('afterprint'))")
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@on_wide_screen
def test_it_prints_with_its_definitions_and_without_its_controls(browser):
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert len(printed) > 50_000
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) <= 10
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert js(browser, "document.querySelector('.definitions').open")
    hidden = "[...document.querySelectorAll('.save, .player, form, nav, .numbers')]"
    assert js(browser, f"{hidden}.filter(e => e.checkVisibility()).length") == 0
    assert find(browser, ".key").is_displayed()
    assert js(browser, "document.querySelectorAll('.cursor line').length") == 0
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert js(browser, "document.querySelectorAll('.cursor line').length") > 0
