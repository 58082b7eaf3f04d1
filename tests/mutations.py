"""Breaks the library on purpose, one mistake at a time, and lists the test that notices.

Run it as `python tests/mutations.py`; it works on a copy of the tree and prints a Markdown table.
It fails if a mistake goes unnoticed, or no longer applies to the code.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = ["tests/test_batch_norm.py", "tests/test_parts.py", "tests/test_sync.py"]

# What goes wrong: the file, the code that is right, the code that is not.
MUTATIONS = {
    "stop the gradient of the mean": (
        "jbn/_moments.py",
        "return jnp.sum(du, axis=axes) / size, ",
        "return 0 * jnp.sum(du, axis=axes) / size, ",
    ),
    "stop the gradient of the variance": (
        "jbn/_moments.py",
        "2 * jnp.sum(centred * du, axis=axes) / size",
        "0 * jnp.sum(centred * du, axis=axes) / size",
    ),
    "drop scale": (
        "jbn/_normalize.py",
        "gain = scale.astype(dtype) * precision",
        "gain = precision",
    ),
    "drop bias": (
        "jbn/_normalize.py",
        "centred * per_feature(gain, x) + per_feature(bias, x)",
        "centred * per_feature(gain, x) + 0 * per_feature(bias, x)",
    ),
    "ignore the mask in the sums": (
        "jbn/_moments.py",
        "return term if mask is None else jnp.where",
        "return term if True else jnp.where",
    ),
    "ignore the mask in the size": (
        "jbn/_moments.py",
        "size = jnp.sum(mask, axis",
        "size = jnp.sum(mask | True, axis",
    ),
    "let NaN padding into the backward pass": (
        "jbn/_moments.py",
        "return x if mask is None else lax.select(mask | jnp.isfinite(x)",
        "return x if True else lax.select(mask | jnp.isfinite(x)",
    ),
    "average per-device means without sizes": (
        "jbn/_moments.py",
        "weight = stacked.size / jnp.maximum(size, 1)",
        "weight = jnp.ones_like(stacked.size) / stacked.size.shape[0]",
    ),
    "forget the variance between parts": (
        "jbn/_moments.py",
        "weight * (within + between)",
        "weight * within",
    ),
    "unbiased for biased": (
        "jbn/_moments.py",
        "    var = squares / size - mean * mean",
        "    var = (squares / size - mean * mean) * size / (size - 1)",
    ),
    "swap momentum": (
        "jbn/_batch_norm.py",
        "weights = (momentum, 1 - momentum)",
        "weights = (1 - momentum, momentum)",
    ),
    "epsilon x 10": (
        "jbn/_normalize.py",
        "jnp.asarray(epsilon, dtype) * frame",
        "10 * jnp.asarray(epsilon, dtype) * frame",
    ),
    "epsilon outside the frame's units": (
        "jbn/_normalize.py",
        "jnp.asarray(epsilon, dtype) * frame.factor * frame.factor",
        "jnp.asarray(epsilon, dtype)",
    ),
    "cast the running statistics to bfloat16": (
        "jbn/_running.py",
        "moved.astype(old.dtype)",
        "moved.astype(jnp.bfloat16).astype(old.dtype)",
    ),
    "let gradients through the running statistics": (
        "jbn/_running.py",
        "moments = lax.stop_gradient(moments)",
        "moments = moments",
    ),
    "let a bad batch into the running statistics": (
        "jbn/_running.py",
        "jnp.isfinite(moments.mean) & jnp.isfinite(moments.var)",
        "jnp.ones_like(moments.mean, bool)",
    ),
    "shrink the variance on one example": (
        "jbn/_running.py",
        "sound & (moments.size > 1)",
        "sound & (moments.size > 0)",
    ),
    "sum about zero instead of the shift": (
        "jbn/_frame.py",
        "jnp.maximum(low, jnp.minimum(high, c)) * factor)",
        "0 * jnp.maximum(low, jnp.minimum(high, c)) * factor)",
    ),
    "round the mean before it is subtracted": (
        "jbn/_normalize.py",
        "    centred = enter(frame, x) - per_feature(mean, x)\n    return",
        "    centred = enter(Frame(frame.factor, frame.shift + mean), x)\n    return",
    ),
    "keep x - mean beside x": (
        "jbn/_normalize.py",
        "@partial(jax.checkpoint, prevent_cse=False)",
        "",
    ),
    "retrace when momentum changes": (
        "jbn/_batch_norm.py",
        'static_argnames="axis_name"',
        'static_argnames=("axis_name", "weights")',
    ),
}


def first_failure(name: str) -> str | None:
    """The first test that fails with this mistake made, or None."""
    file, right, wrong = MUTATIONS[name]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs"))
        code = (copy / file).read_text()
        if right not in code:
            sys.exit(f"{name}: {file} no longer reads {right!r}")
        (copy / file).write_text(code.replace(right, wrong))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-n", "2", *TESTS]
        # PYTHONPATH puts the copy before an installed jbn.
        environment = {"PYTHONPATH": str(copy), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
        run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)
    return failed[1] if failed else None


def main(chosen: list[str]) -> None:
    print("| mistake | noticed first by |\n|---|---|")
    unnoticed = []
    for name in chosen or MUTATIONS:
        failure = first_failure(name)
        print(f"| {name} | {(failure and f'`{failure}`') or '**nothing**'} |", flush=True)
        unnoticed += [name] * (failure is None)
    if unnoticed:
        sys.exit(f"unnoticed: {', '.join(unnoticed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
