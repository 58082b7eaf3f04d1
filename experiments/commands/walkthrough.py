"""`walkthrough`: batch norm by hand, on a small table."""

import tyro

from experiments.commands import BAD_INPUT, PROGRAM, ending


def main(arguments: list[str]) -> None:
    """Runs the command."""
    from experiments import walkthrough

    with ending(BAD_INPUT, ValueError):
        tyro.cli(walkthrough.main, prog=f"{PROGRAM} walkthrough", args=arguments)
