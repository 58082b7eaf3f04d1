"""The wheel: what is in it, and that it can be imported where only it and its dependencies are."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import jbn

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


def test_it_holds_the_library_and_its_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        said = Parser().parsestr(archive.read(metadata).decode())
    ours = {p.relative_to(ROOT).as_posix() for p in (ROOT / "jbn").rglob("*.py")}
    assert {name for name in names if not name.startswith("jbn-")} == ours | {
        "jbn/py.typed",
        "jbn/_numerics/column_sums.cc",  # what `make fast` compiles
    }
    assert any(name.endswith("/LICENSE") for name in names)
    assert said["Version"] == jbn.__version__
    assert said["Requires-Python"] == ">=3.11"


def test_it_is_imported_from_an_environment_of_its_own(wheel, tmp_path):
    environment = tmp_path / "environment"
    make = [sys.executable, "-m", "venv", "--without-pip", str(environment)]
    subprocess.run(make, check=True, capture_output=True)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index"]
    subprocess.run([*install, "--no-deps", str(wheel)], check=True, capture_output=True)
    # Dependencies are those of this environment. What .pth files there add, such as a checkout that
    # is installed as editable, is not.
    settings = os.environ | {"PYTHONPATH": sysconfig.get_path("purelib"), "JAX_PLATFORMS": "cpu"}
    code = "import jbn, jbn.linen, jbn.nnx, jbn.convert, jbn.diagnostics; print(jbn.__file__)"
    run = subprocess.run(
        [python, "-c", code],
        cwd=tmp_path,
        env=settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert Path(run.stdout.strip()).is_relative_to(environment)
