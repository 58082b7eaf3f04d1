"""Page of the atlas, atlas.html: one file to move through all settings, with their data inside."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.atlas import grid
from experiments.atlas.train import TEST, Ends
from experiments.system.files import write_whole

PAGE = "atlas.html"
_TEMPLATE = Path(__file__).with_name("atlas.html")


def write(path: Path, measured: Mapping[grid.Program, Ends], conditions: Sequence[str]) -> None:
    """Writes the page of what is measured, with `conditions` under it, a line each."""
    data = {
        "conditions": list(conditions),
        "quantities": list(Ends._fields),
        "test": TEST,
        "grid": grid.constants(),
        "programs": [
            {**program._asdict(), "ends": [_rounded(end) for end in ends]}
            for program, ends in measured.items()
        ],
    }
    # "</script>" in a line of `conditions` would end the script.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    page = _TEMPLATE.read_text(encoding="utf-8").replace("/*DATA*/null", text, 1)
    write_whole(path, page.encode())


def _rounded(end: np.ndarray) -> list[float]:
    """Rounds to tenths of a percent, rates slowest and seeds fastest."""
    return np.round(1000 * np.asarray(end).ravel()).astype(int).tolist()
