"""All benchmarks of a GPU, one after the other: each a command in a process of its own.

JAX keeps most of a GPU's memory for the process that has it.
"""

import shlex
import subprocess
import sys
import time
from pathlib import Path

PARTS = (
    "op --rounds 5 --dtypes float32 bfloat16",
    "layers --rounds 5",
    "train --runs 256 --rounds 3 --networks mlp",
    "accuracy",
)
REHEARSAL = (
    "op --rounds 1 --dtypes float32 bfloat16 --shapes 16x4",
    "layers --rounds 1 --width 8 --batch 32 --layers 2",
    "accuracy --rows 64",
)


def main(out: Path, *, rehearse: bool) -> None:
    """Runs every part, says how long it took, and fails if one did."""
    failed = []
    for part in REHEARSAL if rehearse else PARTS:
        command = [sys.executable, "-m", "experiments", "bench", *part.split(), "--out", str(out)]
        print(f"$ {shlex.join(command)}", flush=True)
        start = time.perf_counter()
        failed += [part] if subprocess.run(command, check=False).returncode else []
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
    if failed:
        sys.exit(f"Failed: {'; '.join(failed)}.")
