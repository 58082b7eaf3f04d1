"""Packages that the command line needs: whether this Python has them, before any is imported."""

import sys
from importlib.util import find_spec

NEEDED = ("tyro", "rich", "jax", "flax", "optax", "xarray", "pandas", "scipy", "sklearn")


def check_packages() -> None:
    """Ends the program, after one line, where the Python that runs it lacks the packages."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"{sys.executable} lacks {', '.join(missing)}. Call the Python that has them: "
            ".venv/bin/python -m experiments .. after `make compare`; or "
            "python -m pip install -e '.[experiments]' in this folder.\n"
        )
        raise SystemExit(2)
