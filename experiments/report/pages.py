"""A page as one file: its words, its figures and the scripts that draw them, and no request."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from experiments.report.looks import Network
from experiments.report.specification import Curve, Density, Figure, Packer

FOLDER = Path(__file__).parent / "page"
# In the order in which each uses those before it.
SCRIPTS = ("study.js", "scale.js", "draw.js", "read.js", "point.js", "controls.js", "tables.js")
MOST_VALUES = 400_000  # of the page's curves and densities; about a megabyte
FEWEST_STEPS = 20


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What a page draws.

    Attributes:
        networks: Those of the figures, by number.
        figures: For each figure's id a figure for each learning rate, or one of all rates.
        rates: The learning rates' names; none where there is no choice.
        same_rate: The number of the rate that is the baseline's best.
        fields: The values of each field that the study has several of.
        steps: The steps at which the study was evaluated.
        steps_per_epoch: None where it is not known.
    """

    networks: Sequence[Network]
    figures: Mapping[str, Sequence[Figure]]
    steps: np.ndarray
    rates: Sequence[str] = ()
    same_rate: int = 0
    fields: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    steps_per_epoch: float | None = None


def render(template: str, name: str, drawn: Drawn, **content: Any) -> str:
    """The page that `template` makes of `content`.

    Args:
        template: A file of the folder `page`.
        name: How files saved from the page begin.
        drawn: Its figures.
        content: What the template speaks of.
    """
    environment = Environment(
        loader=PackageLoader("experiments.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    every = _stride(drawn)
    kept = _kept(drawn.steps, every)
    packer = Packer()
    data = {
        "name": name,
        "networks": [dataclasses.asdict(network) for network in drawn.networks],
        "rates": list(drawn.rates),
        "sameRate": drawn.same_rate,
        "fields": {field: list(values) for field, values in drawn.fields.items()},
        "stepsPerEpoch": drawn.steps_per_epoch,
        "nines": drawn.figures["accuracy"][0].panels[0].y.scale == "nines",
        "steps": packer.pack(drawn.steps[kept]),
        "figures": {
            id_: [packer.pack(_thinned(one, drawn.steps, kept)) for one in each]
            for id_, each in drawn.figures.items()
        },
        "arrays": packer.arrays,
    }
    scripts = [(FOLDER / script).read_text(encoding="utf-8") for script in SCRIPTS]
    return environment.get_template(template).render(
        data=_inert(data),
        drawn=drawn,
        every=every,
        labels={id_: _label(each[0]) for id_, each in drawn.figures.items()},
        css=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        js=Markup("\n".join(scripts)),
        **content,
    )


def _label(figure: Figure) -> str:
    """What all vertical axes of a figure show; empty if they differ."""
    labels = {panel.y.label for panel in figure.panels}
    return labels.pop() if len(labels) == 1 else ""


def _stride(drawn: Drawn) -> int:
    """How many evaluations apart those are that the page keeps."""
    marks = [
        mark
        for each in drawn.figures.values()
        for figure in each
        for panel in figure.panels
        for mark in panel.marks
    ]
    values = sum(mark.runs.size for mark in marks if isinstance(mark, Curve))
    values += sum(mark.heights.size / 2 for mark in marks if isinstance(mark, Density))
    most = max(1, drawn.steps.size // FEWEST_STEPS)
    return min(most, max(1, int(np.ceil(values / MOST_VALUES))))


def _kept(steps: np.ndarray, every: int) -> np.ndarray:
    return np.unique([*range(0, steps.size, every), steps.size - 1])


def _thinned(figure: Figure, steps: np.ndarray, kept: np.ndarray) -> Figure:
    """`figure` with the `kept` of its curves' `steps`."""
    if kept.size == steps.size:
        return figure

    def thin(mark: Any) -> Any:
        if not isinstance(mark, Curve | Density) or not np.array_equal(mark.x, steps):
            return mark
        if isinstance(mark, Curve):
            return dataclasses.replace(mark, x=mark.x[kept], runs=mark.runs[:, kept])
        return dataclasses.replace(mark, x=mark.x[kept], heights=mark.heights[kept])

    panels = [
        dataclasses.replace(panel, marks=[thin(mark) for mark in panel.marks])
        for panel in figure.panels
    ]
    return dataclasses.replace(figure, panels=panels)


def _inert(data: Any) -> Markup:
    """JSON that no label can end early: `<` is written as an escape."""
    return Markup(json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"))
