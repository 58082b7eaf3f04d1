"""The project's own files agree: dependencies, pins, the oldest versions, the changelog."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def lower_bounds(*requirements: str) -> dict[str, str]:
    found = [re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", each) for each in requirements]
    return {match[1].lower(): match[2] for match in found if match}


def test_what_is_needed_is_pinned():
    pins = re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    needed = lower_bounds(
        *PROJECT["dependencies"], *(each for extra in EXTRAS.values() for each in extra)
    )
    assert needed
    assert set(needed) - set(pins) == set()


def test_the_oldest_versions_are_those_that_the_workflow_tests():
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    tested = dict(re.findall(r"'?([\w-]+)==([\d.]+)(?:\.\*')?", workflow))
    for name, bound in lower_bounds(*PROJECT["dependencies"], *EXTRAS["flax"]).items():
        digits = bound.split(".")
        assert tested[name].split(".")[: len(digits)] == digits, name


def test_every_python_is_tested_and_classified():
    (listed,) = re.findall(r"python: \[(.*)\]", (ROOT / ".github/workflows/test.yml").read_text())
    classified = [re.fullmatch(r".* :: (3\.\d+)", each) for each in PROJECT["classifiers"]]
    pythons = [match[1] for match in classified if match]
    assert re.findall(r'"([\d.]+)"', listed) == pythons
    assert PROJECT["requires-python"] == f">={pythons[0]}"


def test_the_workflow_runs_the_tests_as_make_does():
    runs = [
        re.findall(r"pytest (-n \w+ --dist \w+)", (ROOT / path).read_text())
        for path in ("Makefile", ".github/workflows/test.yml")
    ]
    assert runs[0]
    assert set(runs[0]) == set(runs[1])


def test_the_version_has_one_place():
    assert "version" in PROJECT["dynamic"]
    assert "version" not in PROJECT
    assert not re.search(r"^version:", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)


def test_the_changelog_has_its_sections():
    unreleased = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1]
    assert unreleased.startswith("Unreleased")
    assert set(re.findall(r"^### (.*)", unreleased, re.MULTILINE)) >= {"Added", "Changed", "Fixed"}
