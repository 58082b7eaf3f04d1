"""`papers [NAME ...]`: measure what papers claim about batch norm."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from experiments.commands import BAD_INPUT, FAILED, PROGRAM, ending
from experiments.system.console import make_console
from experiments.system.devices import DeviceError, compile_quickly, find_devices

if TYPE_CHECKING:
    from experiments.papers.claim import Claim
    from experiments.papers.results import Result
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
        stand_ins: Literal["none", "controls", "all"] = "none",
        resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
        data_dir: Path | None = None,
        json: Path | None = None,
        out: Path | None = None,
    ) -> None:
        with ending(FAILED, OSError):
            _papers(
                names,
                quick=quick,
                seeds=(seed, *again),
                stand_ins=stand_ins,
                resume=resume,
                data_dir=data_dir,
                files=_Files(json or (out and out / "papers.json"), out),
                command=f"{PROGRAM} papers {shlex.join(_shareable(arguments))}".strip(),
            )

    papers.__doc__ = f"""Measure what papers claim about batch norm, and say what was reproduced.

        Args:
            names: Claims, or first authors; all by default. Known:
                {", ".join(claim.name for claim in CLAIMS)}.
            quick: Fewer seeds and smaller networks: wider intervals, in a fraction of the
                time.
            seed: The first seed; others follow it.
            again: Measure everything again with seeds from each of these, and compare verdicts.
            stand_ins: Measure each claim too with something else in batch norm's place, always in
                the quick form: negative controls alone, or other norms as well. Ends with status
                {FAILED} if a negative control is reproduced.
            resume: Go on where the same command was stopped: what the file of `json` has, measured
                with these seeds, is not measured again.
            data_dir: Folder with MNIST's four files. Otherwise JBN_DATA_DIR is asked, then they are
                downloaded; claims that need them are left out if that fails.
            json: File for everything measured, seed by seed; written after each claim. Claims that
                it has, and that are not measured now, stay in it. By default papers.json in `out`.
            out: Folder for papers.md, of all that the file of `json` has, and its figures.
        """
    tyro.cli(papers, prog=f"{PROGRAM} papers", args=arguments)


@dataclass(frozen=True)
class _Files:
    """Where results go; each claim's as soon as it is measured."""

    json: Path | None
    out: Path | None

    def prepare(self, claims: "Sequence[Claim]") -> "dict[str, Result]":
        """What was measured before, by claim; sees that what is new can be written."""
        from experiments.papers import page as pages
        from experiments.papers import results
        from experiments.system.files import check_writable

        page = self.out and self.out / pages.PAGE
        for path in filter(None, (self.json, page)):
            check_writable(path)
        before = results.read(self.json, claims) if self.json else []
        if page and page.exists() and not before:
            raise ValueError(
                f"{page}: is there, and {self.json}, which would say what is in it, is not. Choose "
                "another folder with --out."
            )
        return {result.claim.name: result for result in before}

    def write(self, results: "Sequence[Result]", left_out: Mapping[str, str], command: str) -> None:
        from experiments.papers.page import write_page
        from experiments.papers.results import as_json
        from experiments.system.files import write_whole

        if self.json:
            write_whole(self.json, as_json(results, left_out, command).encode())
        if self.out:
            write_page(results, left_out, command, self.out)


def _papers(
    names: tuple[str, ...],
    *,
    quick: bool,
    seeds: tuple[int, ...],
    stand_ins: Literal["none", "controls", "all"],
    resume: bool,
    data_dir: Path | None,
    files: _Files,
    command: str,
) -> None:
    from experiments.papers import output
    from experiments.papers.catalogue import CLAIMS, choose
    from experiments.papers.claim import Setting
    from experiments.papers.measuring import Measuring
    from experiments.papers.results import Result

    with ending(BAD_INPUT, ValueError, DeviceError):
        _check_seeds(seeds)
        chosen = choose(names)
        if resume and not files.json:
            raise ValueError("--resume: needs --json or --out, where results were written.")
        found = files.prepare(CLAIMS)
        find_devices()
        images, left_out = None, {}
        if needing := [claim.name for claim in chosen if claim.needs_mnist]:
            images, absent = _mnist(data_dir)
            left_out = dict.fromkeys(needing, absent) if images is None else {}
    if quick:
        compile_quickly()
    first, *others = (Setting(quick, seed, images) for seed in seeds)
    console = make_console()
    tried = [claim for claim in chosen if claim.name not in left_out]
    left_out = {name: why for name, why in left_out.items() if name not in found}

    def write() -> None:
        kept = [found[claim.name] for claim in CLAIMS if claim.name in found]
        files.write(kept, left_out, command)

    def keep(new: Result) -> None:
        if files.out and not (new.again or new.stand_ins):
            output.write_figure(new, files.out)
        write()

    measuring = Measuring(found, command, resume, keep)
    for claim in tried:
        output.print_result(measuring.claim(claim, first), console)
    # All claims with one setting before the next: some share their runs.
    for setting in others:
        for claim in tried:
            measuring.again(claim, setting)
    if stand_ins != "none":
        for claim in tried:
            measuring.stand_ins(claim, first, controls_alone=stand_ins == "controls")
            output.print_stand_ins(found[claim.name], console)
    results = [found[claim.name] for claim in tried]
    output.print_overview(results, left_out, console)
    write()
    if alarms := [f"{r.claim.name} with {name}" for r in results for name in r.alarms]:
        raise SystemExit(f"Reproduced, and must not be: {', '.join(alarms)}.")


def _check_seeds(seeds: tuple[int, ...]) -> None:
    from experiments.study.values import LARGEST_WHOLE

    if bad := [seed for seed in seeds if not 0 <= seed <= LARGEST_WHOLE]:
        raise ValueError(f"seed {bad[0]}: needs a whole number from 0 to {LARGEST_WHOLE}.")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seed and --again: need other seeds each, got {seeds}.")


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
