"""Flax's own tests of BatchNorm, run with Flax's layers and then with ours in their place.

    python tests/flax_suite.py CHECKOUT

CHECKOUT holds the sources of the Flax release that is installed here, tests included: a clone of
github.com/google/flax at its tag, or the unpacked archive that

    pip download --no-deps --no-binary=:all: flax==VERSION

fetches. First every test file that mentions BatchNorm runs as it is, and each test that builds a
layer is noted. Those run again with `flax.linen.BatchNorm` and `flax.nnx.BatchNorm` replaced by
`jbn`'s. Exits with 1 where a test passes with Flax's layers and not with ours.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def swap() -> None:
    import flax.linen
    import flax.nnx

    import jbn.linen
    import jbn.nnx

    for flax_module, ours in ((flax.linen, jbn.linen.BatchNorm), (flax.nnx, jbn.nnx.BatchNorm)):
        home = sys.modules[flax_module.BatchNorm.__module__]
        for module in (flax_module, home):
            setattr(module, "BatchNorm", ours)  # noqa: B010 (a type checker refuses it otherwise)


class Notes:
    """A pytest plugin that notes how each test that built a BatchNorm ended."""

    def __init__(self) -> None:
        import flax.linen
        import flax.nnx

        self.built: set[str] = set()
        self.outcomes: dict[str, str] = {}
        for layer in (flax.linen.BatchNorm, flax.nnx.BatchNorm):
            self.watch(layer)

    def watch(self, layer: type) -> None:
        build = layer.__init__

        @functools.wraps(build)
        def noted(*args, **kwargs):
            self.built.add(os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0])
            return build(*args, **kwargs)

        layer.__init__ = noted

    def pytest_runtest_logreport(self, report) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome


def run_here(checkout: Path, report: Path, tests: list[str], ours: bool) -> None:
    """Runs `tests` in this process and writes the outcomes of those that built a layer."""
    sys.path.insert(0, str(ROOT))
    if ours:
        swap()
    notes = Notes()
    os.chdir(checkout)
    options = ["-q", "-c", "pyproject.toml", "--tb=short", "-W", "ignore:Module already imported"]
    pytest.main([*options, *tests], plugins=[notes])
    built = {name: end for name, end in notes.outcomes.items() if name in notes.built}
    report.write_text(json.dumps(built))


def run(checkout: Path, tests: list[str], *, ours: bool) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        order = Path(folder) / "order.json"
        report = Path(folder) / "report.json"
        order.write_text(json.dumps([str(checkout), str(report), tests, ours]))
        subprocess.run([sys.executable, __file__, "--order", str(order)], check=True)
        return json.loads(report.read_text())


def main(checkout: Path) -> int:
    files = [
        str(path.relative_to(checkout))
        for path in sorted((checkout / "tests").rglob("*_test.py"))
        if "BatchNorm" in path.read_text(encoding="utf-8")
    ]
    theirs = run(checkout, files, ours=False)
    ours = run(checkout, sorted(theirs), ours=True)
    for title, outcomes in (("Flax's", theirs), ("jbn's", ours)):
        passed = sum(end == "passed" for end in outcomes.values())
        print(f"With {title} layers {passed} of {len(theirs)} tests that build one pass.")
    lost = [n for n, end in theirs.items() if end == "passed" and ours.get(n) != "passed"]
    print(*(f"Passes with Flax's only: {name}" for name in lost), sep="\n", end="")
    return 1 if lost else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--order"]:
        checkout, report, tests, ours = json.loads(Path(sys.argv[2]).read_text())
        run_here(Path(checkout), Path(report), tests, ours)
    elif len(sys.argv) == 2:
        sys.exit(main(Path(sys.argv[1]).resolve()))
    else:
        sys.exit(__doc__)
