"""`papers [NAME ...]`: measure what papers claim about batch norm."""

import os
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from experiments.commands import BAD_INPUT, PROGRAM, ending
from experiments.system.devices import compile_quickly
from experiments.system.progress import announce

if TYPE_CHECKING:
    from experiments.papers.claim import Claim, Setting
    from experiments.papers.output import Result
    from experiments.study.data import Data


def main(arguments: list[str]) -> None:
    """Carries out the command that `arguments` give."""
    from experiments.papers.catalogue import CLAIMS

    def papers(
        names: Annotated[
            tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME ...]")
        ] = (),
        quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
        seed: int = 0,
        again: tuple[int, ...] = (),
        data_dir: Path | None = None,
        json: Path | None = None,
        out: Path | None = None,
    ) -> None:
        with ending(BAD_INPUT, ValueError, OSError):
            _papers(
                names,
                quick=quick,
                seeds=(seed, *again),
                data_dir=data_dir,
                json=json,
                out=out,
                command=f"{PROGRAM} papers {shlex.join(_shareable(arguments))}".strip(),
            )

    papers.__doc__ = f"""Measure what papers claim about batch norm, and say what was reproduced.

        Args:
            names: Claims, or first authors; all by default. Known:
                {", ".join(claim.name for claim in CLAIMS)}.
            quick: Fewer seeds and smaller networks: wider intervals, in two minutes.
            seed: The first seed; others follow it.
            again: Measure everything again with seeds from each of these, and compare verdicts.
            data_dir: Folder with MNIST's four files. Otherwise JBN_DATA_DIR is asked, then they are
                downloaded; claims that need them are left out if that fails.
            json: File for everything measured, seed by seed; written after each claim.
            out: Folder for papers.md and its figures.
        """
    tyro.cli(papers, prog=f"{PROGRAM} papers", args=arguments)


def _papers(
    names: tuple[str, ...],
    *,
    quick: bool,
    seeds: tuple[int, ...],
    data_dir: Path | None,
    json: Path | None,
    out: Path | None,
    command: str,
) -> None:
    from experiments.papers import output
    from experiments.papers.catalogue import choose
    from experiments.papers.claim import Setting
    from experiments.study.config import LARGEST_SEED
    from experiments.system.files import write_whole

    if bad := [seed for seed in seeds if not 0 <= seed <= LARGEST_SEED]:
        raise ValueError(f"seed {bad[0]}: needs a whole number from 0 to {LARGEST_SEED}.")
    chosen = choose(names)
    for folder in (out, json and json.parent):  # known to be writable before the work
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
    images, left_out = None, {}
    if needing := [claim.name for claim in chosen if claim.needs_mnist]:
        images, absent = _mnist(data_dir)
        left_out = dict.fromkeys(needing, absent) if images is None else {}
    tried = [claim for claim in chosen if claim.name not in left_out]
    if quick:
        compile_quickly()
    first, *others = (Setting(quick, seed, images) for seed in seeds)
    console, results = Console(), []

    def save() -> None:
        if json:
            write_whole(json, output.as_json(results, left_out, command).encode())

    def write() -> None:
        if out:
            output.write_page(results, left_out, command, out)

    for claim in tried:
        results.append(_measure(claim, first))
        output.print_result(results[-1], console)
        save()
    write()
    # All claims with one setting before the next: some share their runs.
    for setting in others:
        for result in results:
            verdict = _measure(result.claim, setting).outcome.verdict
            result.again[setting.first_seed] = verdict
            save()
    output.print_overview(results, left_out, console)
    write()


def _measure(claim: "Claim", setting: "Setting") -> "Result":
    from experiments.papers.output import Result

    announce(f"{claim.name}, seeds from {setting.first_seed}")
    begun = time.perf_counter()
    outcome = claim.measure(setting)
    return Result(claim, outcome, time.perf_counter() - begun)


def _mnist(data_dir: Path | None) -> "tuple[Data | None, str]":
    """MNIST, or why there is none; files that were named and are not there are an error."""
    from experiments.study import data

    try:
        return data.load("mnist", data_dir), ""
    except data.DataError as error:
        if data_dir is not None or "JBN_DATA_DIR" in os.environ:
            raise ValueError(str(error)) from error
        return None, f"no MNIST: {error}"


def _shareable(arguments: list[str]) -> list[str]:
    """What a reader would type to repeat this: with folders of their own."""
    words = {"--data-dir": "DIR", "--out": "DIR", "--json": "FILE"}
    return [words.get(before, word) for before, word in zip(["", *arguments], arguments)]
