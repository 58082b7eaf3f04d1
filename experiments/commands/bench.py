"""`bench`: jbn beside other libraries."""

from experiments.commands import BAD_INPUT, FAILED, PROGRAM, ending


def main(arguments: list[str]) -> None:
    """Runs the command."""
    from experiments import bench
    from experiments.bench.targets import TargetError
    from experiments.system.devices import DeviceError
    from experiments.system.files import OutputError

    with ending(FAILED, OSError), ending(BAD_INPUT, OutputError, TargetError, DeviceError):
        bench.main(arguments, prog=f"{PROGRAM} bench")
