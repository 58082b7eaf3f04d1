"""The report of a study of the size of those in `configs`, and a browser that has opened it."""

import numpy as np
import pytest
from browsing import PHONE, WIDE, visit
from synthetic import keep, learning, of_several_values, study

from experiments.report.comparison import write_comparison
from experiments.report.write import write_report

RATES = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]


@pytest.fixture(scope="session")
def without_paper():
    """A function that writes a report's page alone: figures for paper take most of the time."""

    def write(dataset, folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("experiments.report.figures.FIGURES", {})
            return write_report(keep(dataset, folder))

    return write


@pytest.fixture(scope="session")
def page(tmp_path_factory, without_paper):
    accuracy = [
        [learning(0.9 - 0.1 * abs(i - 5), 6, points=101) for i in range(7)],
        [learning(0.97 - 0.01 * abs(i - 3), 30, points=101) for i in range(7)],
    ]
    dataset = study(np.array(accuracy), rates=RATES, layers=4, every=20)
    dataset["seconds_per_step"] = ("norm", "step"), np.outer([0.01, 0.02], np.ones(101))
    dataset.attrs["train_examples"] = 1200
    return without_paper(dataset, tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def swept(tmp_path_factory, without_paper):
    """The page of a study with five networks, of several values."""
    return without_paper(of_several_values(), tmp_path_factory.mktemp("swept"))


@pytest.fixture(scope="session")
def comparison(tmp_path_factory):
    """The page of two studies whose networks gain and lose ten points; one is half as long."""
    out = tmp_path_factory.mktemp("comparison")
    folders = [out / name for name in ("one", "two")]
    for folder, gained, points in zip(folders, (0.1, -0.1), (41, 21)):
        accuracy = [[learning(0.8 + added, 6, points=points)] * 2 for added in (0, gained)]
        keep(study(np.array(accuracy), rates=[0.1, 1.0]), folder)
    return write_comparison(folders, out / "comparison.html")


@pytest.fixture(params=[PHONE, WIDE], ids=["phone", "wide"])
def browser(request, chromium, page):
    """A browser that has opened the page and drawn all of it."""
    return visit(chromium, page, request.param)
