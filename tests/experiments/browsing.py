"""Opening a page in a browser, and asking what is drawn on it."""

import json
import time

import pytest

PHONE, WIDE = 390, 1440
on_wide_screen = pytest.mark.parametrize("browser", [WIDE], ids=["wide"], indirect=True)

# What can be reached or has a role, and no name that is spoken.
NAMELESS = """(() => {
    const controls = 'button, input, select, summary, a, [tabindex], [role]';
    const elsewhere = 'input, select, [tabindex], [role=img]'; // their text is no name
    const named = e => e.getAttribute('aria-label') || e.closest('label')?.textContent.trim()
        || !e.matches(elsewhere) && e.textContent.trim();
    return [...document.querySelectorAll(controls)].filter(e => !named(e)).map(e => e.outerHTML);
})()"""


def visit(driver, page, width):
    media(driver, "light")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get("about:blank")  # a new browser is still loading a page of its own
    for log in ("browser", "performance"):
        driver.get_log(log)  # what other pages did is forgotten
    driver.get(page.as_uri())
    driver.execute_script("figures.forEach(draw)")
    return driver


def media(driver, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def find(driver, selector):
    return driver.find_element("css selector", selector)


def click(driver, selector, inside=None):
    driver.execute_script("arguments[0].click()", find(inside or driver, selector))


def js(driver, expression, *arguments):
    return driver.execute_script(f"return {expression}", *arguments)


def line(driver, figure, network=1):
    """Where a network's line goes."""
    selector = f"#{figure} .line[data-network='{network}']"
    return js(driver, "document.querySelector(arguments[0])?.getAttribute('d')", selector)


def press(driver, *keys):
    from selenium.webdriver import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def faults(driver):
    """What axe-core finds on the page that is more than minor, and where."""
    from selenium_axe_python import Axe

    axe = Axe(driver)
    axe.inject()
    found = axe.run(options={"resultTypes": ["violations"]})["violations"]
    return [
        f"{fault['impact']}: {fault['help']}: {node['html'][:200]}"
        for fault in found
        if fault["impact"] != "minor"
        for node in fault["nodes"]
    ]


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
    asked = [url for url in sent if not url.startswith(("data:", "blob:", "chrome:"))]
    assert asked == [page.as_uri()], asked


def assert_fits(browser, figures):
    width = js(browser, "innerWidth")
    assert js(browser, "document.documentElement.scrollWidth") <= width
    drawings = "[...document.querySelectorAll('.plot svg')]"
    boxes = js(browser, f"{drawings}.map(s => s.getBoundingClientRect())")
    assert len(boxes) == figures
    assert all(box["left"] >= 0 and box["right"] <= width for box in boxes)
    outside = """[...document.querySelectorAll('.plot text')].filter(t => {
        const [a, b] = [t.getBoundingClientRect(), t.ownerSVGElement.getBoundingClientRect()];
        return a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1;
    }).map(t => t.textContent)"""
    assert js(browser, outside) == []
