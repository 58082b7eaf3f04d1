"""The pages that ship, read by axe-core; reports have theirs in report/test_browser_access.py."""

from pathlib import Path

import pytest
from browsing import PHONE, WIDE, faults, media

from experiments.walkthrough.page import PAGE

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "site"
# Pages of every kind there is; they share one theme.
OF_THE_SITE = ["index", "tutorial", "which", "math", "study", "results/papers", "reference/index"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, WIDE])
@pytest.mark.parametrize("page", [PAGE, ROOT / "docs/results/atlas.html"], ids=lambda p: p.stem)
def test_a_page_of_ours(chromium, page, width, scheme):
    media(chromium, scheme)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chromium.get(page.as_uri())
    chromium.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert faults(chromium) == []


@pytest.mark.skipif(not SITE.exists(), reason="the site is not built: make docs")
@pytest.mark.parametrize("name", OF_THE_SITE)
def test_the_site(chromium, name):
    media(chromium, "light")
    chromium.get((SITE / f"{name}.html").as_uri())
    assert faults(chromium) == []
