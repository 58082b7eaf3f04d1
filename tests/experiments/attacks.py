"""Attacks on the runner: kills, damage, full disks and races, at random, and what is left after.

As a command: `python tests/experiments/attacks.py --kills 300 --tears 100 --flips 500 --disks 60
--races 30 --checkpoints 200` prints a table in Markdown, and fails if an attack changed a number
silently or ended in a traceback. The training is fake: each number follows from that of the step
before, so that one which is lost or mixed changes all that come after.
"""

import argparse
import collections
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import xarray as xr
from flax.serialization import msgpack_restore, msgpack_serialize
from forked import Workshop, die_at, full_disk_at

from experiments.runner import measured

CONFIG = """
import dataclasses
from forked import STUDY

study = dataclasses.replace(STUDY, steps=12)
"""
STATUSES = (0, 1, 2)


class Attack(NamedTuple):
    """What was tried, and what came of it: a word, or what is wrong."""

    what: str
    came: str
    is_right: bool


class Attacks:
    """Attacks in `folder`, from this seed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self._folder, self._count = folder, 0
        config = folder / "study.py"
        config.write_text(CONFIG)
        self._workshop = Workshop(folder, devices=1, config=config, fake=True)
        self.whole = folder / "whole"
        said = self._run(self.whole, count_calls)[1]
        self._calls = int(re.findall(r"(\d+) calls", said)[0])
        self.left = folder / "left"
        status, said = self._run(self.left, die_at, 9, "half")
        assert status == -signal.SIGKILL, said

    def kill(self) -> Attack:
        """Kills at a call of the runner's, up to three times, then lets it finish."""
        out, killed = self._new(), 0
        for _ in range(self.chance.randint(1, 3)):
            status, said = self._run(out, die_at_call, self.chance.randrange(self._calls))
            killed += status == -signal.SIGKILL
            if status not in (0, -signal.SIGKILL):
                return Attack("killed", said, is_right=False)
        return self._judge(out, f"killed {killed} times", *self._run(out))

    def tear(self) -> Attack:
        """Kills while the log is written, part of which is there, up to three times."""
        out = self._new()
        for _ in range(self.chance.randint(1, 3)):
            tear = self.chance.randint(1, 3), self.chance.random(), self.chance.random() < 0.5
            status, said = self._run(out, die_tearing, *tear)
            if status != -signal.SIGKILL:
                return Attack("torn", f"status {status}: {said}", is_right=False)
        return self._judge(out, "torn", *self._run(out))

    def flip(self) -> Attack:
        """Flips a bit of a finished study's folder."""
        out = self._new(self.whole)
        path = self.chance.choice([path for path in sorted(out.rglob("*")) if path.stat().st_size])
        bit = flip(path, self.chance)
        return self._judge(out, f"{path.name}, bit {bit}", *self._run(out))

    def fill(self) -> Attack:
        """Lets the disk be full at a flush, or files be no larger than so many bytes."""
        out = self._new()
        if self.chance.random() < 0.5:
            fate = (full_disk_at, self.chance.randrange(1, 40))
        else:
            fate = (no_file_larger, self.chance.randrange(1, 30_000))
        what = f"{fate[0].__name__} {fate[1]}"
        judged = self._judge(out, what, *self._run(out, *fate))
        if not judged.is_right or judged.came == "as if nothing had happened":
            return judged
        again = self._judge(out, what, *self._run(out))
        whole = again.came == "as if nothing had happened"
        return Attack(what, f"{judged.came}, then {again.came}", again.is_right and whole)

    def race(self) -> Attack:
        """Starts three processes at once."""
        out = self._new()
        started = [self._workshop.start(out) for _ in range(3)]
        statuses = sorted(one.end() for one in started)
        says = "\n".join(one.said for one in started)
        if statuses[0] != 0 or not {*statuses} <= {0, 2} or "Traceback" in says:
            return Attack("three at once", says, is_right=False)
        judged = self._judge(out, "three at once", *self._run(out))
        winners = statuses.count(0)
        return judged._replace(came=f"{winners} finished, {3 - winners} refused; {judged.came}")

    def damage(self) -> Attack:
        """Damages checkpoints of a study that was killed, one or both, or what it had measured."""
        out = self._new(self.left)
        found = sorted((out / "checkpoints").glob("*.ckpt"), reverse=True)
        found = found[: self.chance.randint(1, 2)]
        ways = [flip, cut, scramble, replace_by_a_folder]
        if self.chance.random() < 0.5:
            found = [out / "checkpoints" / "measured.log"]
            ways += [lengthen, remove, repeat]
        else:
            ways += [forge]
        how = self.chance.choice(ways)
        for path in found:
            how(path, self.chance)
        what = f"{how.__name__} {', '.join(path.name for path in found)}"
        return self._judge(out, what, *self._run(out))

    def _judge(self, out: Path, what: str, status: int, said: str) -> Attack:
        if "Traceback" in said or status not in STATUSES:
            return Attack(what, f"status {status}: {said}", is_right=False)
        if status:
            return Attack(what, f"status {status} and a line", is_right=said.strip() != "")
        for path in [*out.rglob("*.damaged")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        same = contents(out) == contents(self.whole)
        came = "as if nothing had happened" if same else "status 0 and other files"
        return Attack(what, came, is_right=same)

    def _new(self, like: Path | None = None) -> Path:
        self._count += 1
        out = self._folder / str(self._count)
        if like:
            shutil.copytree(like, out)
        return out

    def _run(self, out: Path, *fate: Any) -> tuple[int, str]:
        prepare, *with_ = fate or (None,)
        return self._workshop.carry_out(out, prepare=prepare, prepared_with=tuple(with_))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, but for what metrics.nc says of folder, machine and time, and its checksum."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    dataset = xr.load_dataset(folder / "metrics.nc").drop_vars("seconds_per_step")
    del dataset.attrs["command"], dataset.attrs["environment"]
    sums = re.sub(rb".*  metrics.nc\n", b"", found["SHA256SUMS"])
    return found | {"metrics.nc": bytes(dataset.to_netcdf()), "SHA256SUMS": sums}


def count_calls() -> None:
    """Says at its end how many calls the runner made."""
    from multiprocessing import util

    calls = _watch(lambda count: None)
    util.Finalize(None, lambda: print(f"{calls[0]} calls"), exitpriority=0)


def die_at_call(number: int) -> None:
    """Kills this process at the `number`-th call of the runner's."""
    _watch(lambda count: count == number and os.kill(os.getpid(), signal.SIGKILL))


def die_tearing(call: int, part: float, zeros: bool) -> None:
    """Kills this process at its `call`-th write to the log, of which this part is there.

    With `zeros` the file is as long as it would be, as some file systems leave it.
    """
    append, calls = measured.append, 0

    def dying_append(path: Path, mark: Any, packed: Any) -> Any:
        nonlocal calls
        calls += 1
        whole = append(path, mark, packed)
        if calls == call:
            os.truncate(path, mark.length + int(part * (whole.length - mark.length)))
            if zeros:
                os.truncate(path, whole.length)
            os.kill(os.getpid(), signal.SIGKILL)
        return whole

    measured.append = dying_append


def _watch(see: Callable[[int], Any]) -> list[int]:
    calls = [0]

    def profile(frame: Any, event: str, _: Any) -> None:
        if "/experiments/runner/" in frame.f_code.co_filename or (
            "/experiments/system/" in frame.f_code.co_filename
        ):
            calls[0] += 1
            see(calls[0])

    sys.setprofile(profile)
    return calls


def no_file_larger(size: int) -> None:
    """No file of this process's can be larger."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def flip(path: Path, chance: random.Random) -> int:
    content = bytearray(path.read_bytes())
    bit = chance.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    return bit


def cut(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def scramble(path: Path, chance: random.Random) -> None:
    path.write_bytes(chance.randbytes(chance.randrange(10_000)))


def forge(path: Path, chance: random.Random) -> None:
    """Writes other content with a right checksum."""
    content = path.read_bytes()
    start = content.index(b"\n") + 5
    fields: Any = msgpack_restore(content[start:])
    field = chance.choice(sorted(fields))
    odd = [{}, [], -20, 10**6, 3, "x", np.zeros(3), {"x": np.zeros((2, 2))}, None, 0.5]
    fields[field] = chance.choice(odd)
    packed = msgpack_serialize(fields)
    path.write_bytes(content[: start - 4] + zlib.crc32(packed).to_bytes(4, "big") + packed)


def lengthen(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes() + chance.randbytes(chance.randrange(1, 10_000)))


def repeat(path: Path, _: random.Random) -> None:
    """Writes all records twice, each with its right checksum."""
    content = path.read_bytes()
    path.write_bytes(content + content[content.index(b"\n") + 1 :])


def remove(path: Path, _: random.Random) -> None:
    path.unlink()


def replace_by_a_folder(path: Path, _: random.Random) -> None:
    path.unlink()
    (path / "x").mkdir(parents=True)


KINDS = {
    "kills": Attacks.kill,
    "tears": Attacks.tear,
    "flips": Attacks.flip,
    "disks": Attacks.fill,
    "races": Attacks.race,
    "checkpoints": Attacks.damage,
}


def attack(folder: Path, seed: int, counts: dict[str, int]) -> dict[str, list[Attack]]:
    """So many attacks of each kind."""
    attacks = Attacks(folder, seed)
    return {kind: [KINDS[kind](attacks) for _ in range(n)] for kind, n in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    counts = vars(parser.parse_args())
    seed = counts.pop("seed")
    words = " ".join(f"--{kind} {count}" for kind, count in counts.items())
    print(f"# Attacks on the runner\n\n- Command: `python {sys.argv[0]} {words} --seed {seed}`\n")
    with tempfile.TemporaryDirectory() as folder:
        done = attack(Path(folder), seed, counts)
    print("| attack | tried | what came of it | silent changes, tracebacks |")
    print("|---|---|---|---|")
    for kind, each in done.items():
        came = collections.Counter(one.came for one in each if one.is_right)
        told = "; ".join(f"{count} {what}" for what, count in came.most_common())
        print(f"| {kind} | {len(each)} | {told} | {sum(not one.is_right for one in each)} |")
    wrong = [one for each in done.values() for one in each if not one.is_right]
    for one in wrong:
        print(f"\n{one.what}: {one.came}", file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
