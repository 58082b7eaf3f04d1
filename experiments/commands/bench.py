"""`bench`: jbn beside other libraries."""

from experiments.commands import BAD_INPUT, PROGRAM, ending


def main(arguments: list[str]) -> None:
    """Runs the command."""
    from experiments import bench
    from experiments.bench.targets import TargetError

    with ending(BAD_INPUT, OSError, TargetError):
        bench.main(arguments, prog=f"{PROGRAM} bench")
