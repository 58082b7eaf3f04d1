"""The house rules as tests: floors, imports, public names and their documentation."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import jbn

ROOT = Path(__file__).parent.parent

# Imports point down: a module may import modules of its own floor's row or of a lower floor, and
# third-party packages of its own floor or a lower one. The longest matching name counts.
FLOORS = {
    "jbn._types": 0,
    "jbn._pytrees": 0,
    "jbn._numerics": 0,
    "jbn._numerics.measure": 1,
    "jbn._moments": 1,
    "jbn._batch": 1,
    "jbn._normalize": 1,
    "jbn._running": 1,
    "jbn._variants": 2,
    "jbn._fold": 2,
    "jbn._batch_norm": 3,
    "jbn._recalibrate": 3,
    "jbn": 3,
    "jbn._flax": 4,
    "jbn.convert": 4,
    "jbn.diagnostics": 4,
    "jbn.linen": 5,
    "jbn.nnx": 5,
    "experiments.system": 6,
    "experiments.study": 7,
    "experiments.runner": 8,
    "experiments.report": 8,
    "experiments.papers": 8,
    "experiments.atlas": 9,
    "experiments.bench": 9,
    "experiments": 10,
    "configs": 10,
    "examples": 10,
}
THIRD_PARTY = {0: {"jax", "jaxtyping", "numpy"}, 5: {"flax"}}


def floor(module: str) -> int | None:
    names = [name for name in FLOORS if module == name or module.startswith(name + ".")]
    return FLOORS[max(names, key=len)] if names else None


def modules():
    for folder in ("jbn", "experiments", "configs", "examples"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            assert node.level == 0, f"{path}: imports are absolute"


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: str(value))
def test_imports_point_down(module, path):
    mine = floor(module)
    assert mine is not None, f"{module} has no floor: add it to FLOORS"
    allowed = set().union(*(names for level, names in THIRD_PARTY.items() if level <= mine))
    for name in imports(path):
        theirs = floor(name)
        if theirs is not None:
            assert theirs <= mine, f"{module} (floor {mine}) imports {name} (floor {theirs})"
        elif mine < 6:
            top = name.split(".")[0]
            assert top in allowed | sys.stdlib_module_names, f"{module} imports {name}"


def test_matplotlib_stays_with_the_figures():
    users = {m for m, path in modules() if any("matplotlib" in n for n in imports(path))}
    assert users <= {
        "experiments.report.figures",
        "experiments.report.write",
        "experiments.papers.figures",
    }


def test_the_core_needs_only_jax():
    code = "import sys, jbn; print({'flax', 'optax', 'chex'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()", run.stdout


def test_tools_and_layers_are_there_where_they_are_named():
    code = "import jbn; print(jbn.convert.from_torch, jbn.diagnostics, jbn.linen, jbn.nnx)"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert {"convert", "linen", "batch_norm"} <= set(dir(jbn))
    with pytest.raises(AttributeError, match="'jbn' has no attribute 'batchnorm'"):
        jbn.batchnorm  # noqa: B018


PUBLIC = {
    name: value
    for name, value in vars(jbn).items()
    if not name.startswith("_") and not inspect.ismodule(value)
}


def test_the_contents_page_is_complete():
    assert set(PUBLIC) >= {
        "Affine", "Moments", "RunningStats", "Standard", "Variant", "batch_moments", "batch_norm",
        "bessel_correction", "init", "normalize", "pool_moments", "sync_moments",
        "update_running", "warmup_momentum",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_things_are_documented(name):
    value = PUBLIC[name]
    doc = inspect.getdoc(value)
    assert doc, f"{name} has no docstring"
    if not inspect.isfunction(value):
        return
    assert ">>>" in doc or name == "sync_moments", f"{name} has no example"
    parameters = inspect.signature(value).parameters.values()
    for parameter in parameters:
        assert parameter.annotation is not parameter.empty or parameter.name in ("step", "dtype")
        if parameter.default is not parameter.empty and name not in (
            "init",
            "warmup_momentum",
            "debiased_momentum",
        ):
            choice = parameter.kind is parameter.KEYWORD_ONLY or parameter.name in ("scale", "bias")
            assert choice, f"{name}({parameter.name}): data is positional, choices keyword-only"


def test_slow_tests_exist():
    for name in (ROOT / "tests" / "slow.txt").read_text().split():
        path, _, test = name.partition("::")
        assert (ROOT / path).exists(), name
        assert f"def {test}" in (ROOT / path).read_text() if test else True, name


def test_files_stay_short():
    long = {
        str(path.relative_to(ROOT)): count
        for folder in ("jbn", "experiments", "configs", "tests", "examples")
        for path in (ROOT / folder).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 400
    }
    assert not long
