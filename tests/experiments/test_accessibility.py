"""The pages that ship, read by axe-core; reports have theirs in report/test_browser_access.py."""

from pathlib import Path

import pytest
from browsing import WIDE, faults, media

from experiments.walkthrough.page import PAGE

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "site"
NARROW = 320  # pixels, what WCAG asks a page to fit into
# Pages of every kind: the first, the list, prose, code, formulas, wide tables, a
# reference, and those that Sphinx makes. They share one theme.
OF_THE_SITE = [
    "index",
    "docs/index",
    "README",
    "docs/tutorial",
    "docs/math",
    "docs/results/memory",
    "docs/results/sweeps",
    "docs/reference/linen",
    "genindex",
    "search",
]


def open_page(driver, page, width, scheme):
    media(driver, scheme)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert page.exists()  # else the browser's own page of errors is read
    driver.get(page.as_uri())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("page", [PAGE, ROOT / "docs/results/atlas.html"], ids=lambda p: p.stem)
def test_a_page_of_ours(chromium, page, width, scheme):
    open_page(chromium, page, width, scheme)
    chromium.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert faults(chromium) == []


@pytest.mark.skipif(not SITE.exists(), reason="the site is not built: make docs")
@pytest.mark.parametrize(("width", "scheme"), [(NARROW, "light"), (WIDE, "dark")])
@pytest.mark.parametrize("name", OF_THE_SITE)
def test_the_site(chromium, name, width, scheme):
    open_page(chromium, SITE / f"{name}.html", width, scheme)
    assert faults(chromium) == []
