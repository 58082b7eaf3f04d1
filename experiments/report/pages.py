"""A page as one file: its words, its figures and the library that draws them, and no request."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.io as pio
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from experiments.report.figures import COLOURS, INK, MUTED, PAPER, RULE
from experiments.report.panels import Figure

FOLDER = Path(__file__).parent / "page"


def render(
    template: str,
    name: str,
    figures: Mapping[str, Sequence[Figure]],
    frames: Sequence[Any] = (),
    **content: Any,
) -> str:
    """The page that `template` makes of `content`.

    Args:
        template: A file of the folder `page`.
        name: How files saved from the page begin.
        figures: For each figure's id what is drawn there, one for each choice of rates.
        frames: What the slider moves through, one for each choice of rates.
        content: What the template speaks of.
    """
    environment = Environment(
        loader=PackageLoader("experiments.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    data = {
        "name": name,
        "colours": _colours(),
        "frames": list(frames),
        # Text in text: the page puts its theme's colours in before it parses a figure.
        "figures": {
            id_: [pio.to_json(one, validate=False) for one in each] for id_, each in figures.items()
        },
    }
    return environment.get_template(template).render(
        data=_inert(data),
        plotly=Markup(get_plotlyjs()),
        css=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        js=Markup((FOLDER / "page.js").read_text(encoding="utf-8")),
        **content,
    )


def _colours() -> dict[str, str]:
    """The variable of the style sheet that stands for each colour of a figure."""
    named = {INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--paper"}
    return {c: f"--series-{i}" for i, c in enumerate(COLOURS)} | named


def _inert(data: Any) -> Markup:
    """JSON that no label can end early: `<` is written as an escape."""
    return Markup(json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"))
