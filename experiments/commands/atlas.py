"""`atlas --out DIR`: when does batch norm help? A map over depth, rate, batch size and norm."""

from pathlib import Path

import tyro

from experiments.commands import BAD_INPUT, FAILED, PROGRAM, ending
from experiments.system.console import make_console
from experiments.system.devices import DeviceError, find_devices
from experiments.system.progress import announce


def main(arguments: list[str]) -> None:
    """Carries out the command that `arguments` give."""

    def atlas(out: Path) -> None:
        """Train small networks at every setting of the atlas, and write its table and its page.

        What the table has is not trained again: the same command goes on where it was stopped.

        Args:
            out: Folder for atlas.csv, a row for each run, and atlas.html.
        """
        with ending(FAILED, OSError):
            _atlas(out)

    tyro.cli(atlas, prog=f"{PROGRAM} atlas", args=arguments)


def _atlas(out: Path) -> None:
    from experiments.atlas import grid, page, table
    from experiments.atlas.train import run_all
    from experiments.commands.report import print_path
    from experiments.system.environment import conditions
    from experiments.system.files import check_writable

    with ending(BAD_INPUT, ValueError, DeviceError):
        for name in (table.TABLE, page.PAGE):
            check_writable(out / name)
        before = table.read(out / table.TABLE)
        find_devices()
    programs = grid.programs()
    measured = {program: before[program] for program in programs if program in before}
    for number, program in enumerate(programs, start=1):
        if program not in measured:
            announce(f"{number} of {len(programs)}: {program}")
            measured[program] = run_all(program)
            table.write(out / table.TABLE, measured)
    ordered = {program: measured[program] for program in programs}
    page.write(out / page.PAGE, ordered, conditions(f"{PROGRAM} atlas --out DIR"))
    print_path("Atlas", out / page.PAGE, make_console())
