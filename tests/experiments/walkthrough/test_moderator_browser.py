"""The page in a real browser: right at any width, silent, moved by keys, and it trains."""

import json
import time

import pytest
from moderator import evaluate

from experiments.walkthrough.page import PAGE

PHONE, TABLET, WIDE = 390, 768, 1440
OTHER = "people=14.5,0,3&gamma=-1.5&batches=41&order=sorted&pair=5,5.01&loud=9&who=3&kind=group"


@pytest.fixture
def visit(chromium):
    def open_page(address="", width=WIDE, scheme="light", motion="reduce"):
        media = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        features = [{"name": name, "value": value} for name, value in media.items()]
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chromium.get("about:blank")  # an address that differs after # alone loads nothing
        for log in ("browser", "performance"):
            chromium.get_log(log)
        chromium.get(f"{PAGE.as_uri()}#{address}")
        return chromium

    return open_page


def find(driver, selector):
    return driver.find_element("css selector", selector)


def script(driver, expression, *arguments):
    return driver.execute_script(f"return {expression}", *arguments)


def until(condition, seconds=20):
    for _ in range(20 * seconds):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"it did not happen within {seconds} seconds")


@pytest.mark.parametrize("width", [PHONE, TABLET, WIDE])
def test_it_fits_the_screen_and_asks_for_nothing(visit, width):
    page = visit(width=width)
    assert script(page, "document.documentElement.scrollWidth") <= width
    boxes = "[...document.querySelectorAll('table, svg, math, .guess')]"
    assert max(script(page, f"{boxes}.map(e => e.getBoundingClientRect().right)")) <= width
    assert page.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    sent = [e["params"]["request"]["url"] for e in events if e["method"].endswith("WillBeSent")]
    assert [url.partition("#")[0] for url in sent] == [PAGE.as_uri()]


@pytest.mark.parametrize("address", ["", OTHER], ids=["as it comes", "moved"])
def test_every_number_shown_is_that_of_the_mathematics(visit, address):
    """Which test_moderator.py compares with jbn."""
    page = visit(address)
    numbers = evaluate(
        """Object.fromEntries(Object.entries(NUMBERS).map(([stop, numbers]) =>
            [stop, numbers(readAddress(text).state)]))""",
        text=address,
    )
    shown = script(
        page, "[...document.querySelectorAll('[data-n]')].map(e => [e.dataset.n, e.textContent])"
    )
    assert len(shown) > 100
    for path, text in shown:
        value = numbers
        for key in path.split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]
        tolerance = 0.5 * 10 ** -len(text.partition(".")[2])
        assert float(text.replace("−", "-")) == pytest.approx(value, abs=1.001 * tolerance), path
    assert {path.partition(".")[0] for path, _ in shown} == {*numbers} - {"training"}


def test_a_key_moves_a_number_and_the_address(visit):
    from selenium.webdriver.common.keys import Keys

    page = visit("at=equal")
    find(page, "#equal input").send_keys(Keys.ARROW_RIGHT)
    assert find(page, "#equal [data-n='equal.x.0']").text == "8.5"
    assert find(page, "#equal [data-n='equal.mean']").text == "5.1667"
    until(lambda: "people=8.5,5,2" in page.current_url)
    address = page.current_url.partition("#")[2]
    assert address.startswith("at=equal")
    assert find(visit(address), "#equal [data-n='equal.mean']").text == "5.1667"


def test_code_is_copied(visit):
    page = visit("people=8.5,5,2")
    allowed = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    page.execute_cdp_cmd("Browser.grantPermissions", allowed)
    script(page, "document.querySelector('#equal details').open = true")
    find(page, "#equal details button").click()
    until(lambda: find(page, "#equal details [role=status]").text == "Copied.")
    copied = page.execute_async_script(
        "const done = arguments[0]; navigator.clipboard.readText().then(done, e => done(`${e}`))"
    )
    assert "x = jnp.array([[8.5], [5.0], [2.0]])" in copied
    assert copied == evaluate(
        "code('equal', readAddress(text).state)", text=page.current_url.partition("#")[2]
    )


def test_gamma_and_beta_take_the_moderator_back(visit):
    page = visit("people=7,1,4")
    script(page, "document.getElementById('undo').click()")
    assert [find(page, f"[data-n='boss.y.{i}']").text for i in range(3)] == [
        "7.0000",
        "1.0000",
        "4.0000",
    ]


def test_a_guess_is_answered_by_keyboard(visit):
    from selenium.webdriver.common.keys import Keys

    page = visit()
    wrong, right = find(page, "#two button:not([data-right])"), find(page, "#two [data-right]")
    wrong.send_keys(Keys.ENTER)
    assert find(page, "#two output").text.startswith("Not so: “1, as with 8”.")
    right.send_keys(Keys.SPACE)
    assert find(page, "#two output").text.startswith("Right.")
    assert (wrong.get_attribute("aria-pressed"), right.get_attribute("aria-pressed")) == (
        "false",
        "true",
    )


def test_the_steps_are_links_that_move_the_focus(visit):
    from selenium.webdriver.common.keys import Keys

    page = visit()
    find(page, "nav li:nth-child(7) a").send_keys(Keys.ENTER)
    assert script(page, "document.activeElement.closest('section').id") == "gradient"
    until(lambda: script(page, "document.querySelector('[aria-current]')?.textContent") == "7")
    until(lambda: "at=gradient" in page.current_url)


def test_an_address_that_cannot_be_used_is_told(visit):
    page = visit("people=1,x,3&gamma=3")
    assert "people=1,x,3" in find(page, "#complaint").text
    assert find(page, "[data-n='equal.x.0']").text == "8.0"
    assert find(page, "[data-n='boss.sigma']").text == "3.0000"
    assert not find(visit(), "#complaint").is_displayed()


def test_a_table_of_ones_own(visit):
    page = visit("at=norms&kind=batch")
    script(page, "document.querySelector('#norms details').open = true")
    area = find(page, "#table")
    area.clear()
    area.send_keys("a,b\n1,2\n3,x")
    assert "“x” is not a number" in find(page, "#table-complaint").text
    area.send_keys("\b7\n5,9")
    assert not find(page, "#table-complaint").is_displayed()
    assert find(page, "[data-n='norms.y.2.0']").text == "1.2247"
    until(lambda: "table=a" in page.current_url)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_dark(visit, scheme):
    page = visit(scheme=scheme)
    paper = script(page, "getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]


def test_two_networks_train_once_asked_and_the_page_stays_silent(visit):
    page = visit("at=training", motion="reduce")
    script(page, "document.querySelector('#training figure').scrollIntoView()")
    status = "#training figcaption"
    time.sleep(0.3)
    assert find(page, status).text == "Not started."
    script(page, "document.getElementById('train').click()")
    until(lambda: script(page, "Math.min(...Object.values(curves).map(c => c.length))") > 3, 60)
    reached = script(page, "Object.values(curves).map(c => c[3].accuracy)")  # after 60 steps
    script(page, "stopTraining()")
    assert reached[0] > 0.8
    assert reached[1] < 0.2
    assert "With batch norm: 8" in find(page, status).text
    assert script(page, "document.querySelectorAll('#training polyline').length") == 2
    assert page.get_log("browser") == []


def test_they_train_once_seen(visit):
    page = visit("at=training", motion="no-preference")
    script(page, "document.querySelector('#training figure').scrollIntoView({behavior: 'instant'})")
    until(lambda: "With batch norm" in find(page, "#training figcaption").text, 60)
    script(page, "stopTraining()")
