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
FIRST_ROW = (
    "guess = lax.stop_gradient(values.wide[(0,) * (values.wide.ndim - 1)])\n"
    "    guess, epsilon = guess.astype(size.dtype)"
)
# Quick ones first, as the first failure ends a run.
TESTS = [
    "tests/jbn/test_batch_norm.py",
    "tests/jbn/test_parts.py",
    "tests/jbn/test_sync.py",
    "tests/jbn/test_population.py",
    "tests/jbn/test_weights.py",
    "tests/jbn/test_second_sweep.py",
    "tests/jbn/test_every_array.py",
    "tests/jbn/test_named_inputs.py",
    "tests/jbn/test_bound.py",
    "tests/jbn/test_matrix.py",
    "tests/jbn/test_unlike_devices.py",
]

# What goes wrong: the file, and pairs of the code that is right and the code that is not.
MUTATIONS = {
    "stop the gradient of the mean": (
        "jbn/_numerics/measure.py",
        ("return jnp.sum(du, axis=axes) / size, ", "return 0 * jnp.sum(du, axis=axes) / size, "),
    ),
    "stop the gradient of the variance": (
        "jbn/_numerics/measure.py",
        ("2 * jnp.sum(centred * du, axis=axes)", "0 * jnp.sum(centred * du, axis=axes)"),
    ),
    "drop scale": (
        "jbn/_normalize.py",
        ("gain = scale.astype(var.dtype) * lax.rsqrt", "gain = lax.rsqrt"),
    ),
    "drop bias": (
        "jbn/_normalize.py",
        ("gain, centred) + per_feature(bias, centred)", "gain, centred)"),
    ),
    "ignore the mask in the sums": (
        "jbn/_numerics/measure.py",
        ("return term if mask is None else", "return term if True else"),
    ),
    "ignore the mask in the size": (
        "jbn/_numerics/measure.py",
        ("size = jnp.sum(mask, axis", "size = jnp.sum(mask | True, axis"),
    ),
    "let NaN padding into the backward pass": (
        "jbn/_moments.py",
        ("return x if mask is None else _zero", "return x if True else _zero"),
    ),
    "average per-device means without sizes": (
        "jbn/_moments.py",
        (
            "weight = parts.size / jnp.where(size > 0, size, 1)",
            "weight = jnp.ones_like(parts.size) / parts.size.shape[0]",
        ),
    ),
    "forget the variance between parts": (
        "jbn/_moments.py",
        ("parts.var + jnp.square(offset - rest)", "parts.var"),
    ),
    "pool rounded means": (
        "jbn/_moments.py",
        ("parts.mean - origin + parts.remainder", "parts.mean - origin"),
    ),
    "pool far means in the units of the parts": (
        "jbn/_moments.py",
        ("    factor = range_factor(factor, high / 2 - low / 2)\n", ""),
    ),
    "unbiased for biased": (
        "jbn/_numerics/measure.py",
        (
            "    var = squares / size - mean * mean",
            "    var = (squares / size - mean * mean) * size / (size - 1)",
        ),
    ),
    "swap momentum": (
        "jbn/_running.py",
        ("return momentum, 1 - momentum", "return 1 - momentum, momentum"),
    ),
    "epsilon x 10": (
        "jbn/_normalize.py",
        ("jnp.asarray(epsilon, var.dtype) * frame", "10 * jnp.asarray(epsilon, var.dtype) * frame"),
    ),
    "epsilon outside the frame's units": (
        "jbn/_normalize.py",
        ("(epsilon, var.dtype) * frame.factor * frame.factor", "(epsilon, var.dtype)"),
    ),
    "cast the running statistics to bfloat16": (
        "jbn/_running.py",
        ("moved.astype(old.dtype)", "moved.astype(jnp.bfloat16).astype(old.dtype)"),
    ),
    "let gradients through the running statistics": (
        "jbn/_running.py",
        ("lax.stop_gradient(moments)", "moments"),
    ),
    "let a bad batch into the running statistics": (
        "jbn/_running.py",
        (
            "jnp.isfinite(moments.mean) & jnp.isfinite(moments.var)",
            "jnp.ones_like(moments.mean, bool)",
        ),
    ),
    "shrink the variance on one example": (
        "jbn/_running.py",
        ("sound & (moments.size > 1)", "sound & (moments.size > 0)"),
    ),
    "sum once, about the guess": ("jbn/_numerics/measure.py", ("SWEEPS = 9", "SWEEPS = 1")),
    "sum once, about the first row": (
        "jbn/_numerics/measure.py",
        ("SWEEPS = 9", "SWEEPS = 1"),
        ("guess, epsilon = guess.astype(size.dtype)", FIRST_ROW),
    ),
    "end a search of the mean early": ("jbn/_numerics/measure.py", ("SWEEPS = 9", "SWEEPS = 4")),
    "begin about a row of a sharded batch": (
        "jbn/_numerics/measure.py",
        ("guess, epsilon = guess.astype(size.dtype)", FIRST_ROW),
    ),
    "settle for a shift far away": ("jbn/_numerics/frame.py", ("DISTANCE = 1.0", "DISTANCE = 1e3")),
    "let squares overflow": (
        "jbn/_numerics/frame.py",
        ("    factor = select(jnp.isfinite(var), factor, tiny)\n", ""),
    ),
    "let squares underflow": (
        "jbn/_numerics/frame.py",
        ("select(var <= low, larger, frame.factor)", "frame.factor"),
    ),
    "let powers of the variance overflow": (
        "jbn/_numerics/frame.py",
        ("lax.rsqrt(select(far, total, 1))", "jnp.ones_like(total)"),
    ),
    "round in a change of units": (
        "jbn/_numerics/frame.py",
        ("lax.reduce_precision(number, exponent_bits=info.nexp, mantissa_bits=0)", "number"),
    ),
    "round the mean before it is subtracted": (
        "jbn/_normalize.py",
        (
            "frame.convert(values.stored) - per_feature(mean, values.stored)",
            "Frame(frame.factor, frame.shift + mean).convert(values.stored)",
        ),
    ),
    "sum the first rows of blocks": (
        "jbn/_numerics/blocks.py",
        ("tuple(jnp.sum(s, axis=0) for s in sums)", "tuple(s[0] for s in sums)"),
    ),
    "add blocks in one chain": (
        "jbn/_numerics/blocks.py",
        (
            "groups = next(size for size in range(math.isqrt(count), 0, -1) if count % size == 0)",
            "groups = 1",
        ),
    ),
    "subtract far statistics in the units of the data": (
        "jbn/_numerics/measure.py",
        ("select(var > 2.0**32, 2.0**-32, jnp.ones_like(var))", "jnp.ones_like(var)"),
    ),
    "recalibrate every variant as the standard one": (
        "jbn/_variants/_uncentered.py",
        (
            "        return self\n",
            "        from jbn import Standard\n\n        return Standard()\n",
        ),
    ),
    "keep x - mean beside x, of y": (
        "jbn/_normalize.py",
        ("    @partial(jax.checkpoint, prevent_cse=False)\n", ""),
    ),
    "keep x - mean beside x, of the moments": (
        "jbn/_numerics/measure.py",
        ("    @partial(jax.checkpoint, prevent_cse=False)\n", ""),
    ),
    "keep x widened beside x": (
        "jbn/_batch_norm.py",
        ("if x.dtype != statistics_dtype(x.dtype):", "if False:"),
    ),
    "align no vector with sharded features": (
        "jbn/_numerics/sharding.py",
        (
            "return _reshard(vector, x, P(_spec(x)[-1])) if is_explicit(x) else vector",
            "return vector",
        ),
    ),
    "align no moments with replicated statistics": (
        "jbn/_running.py",
        ("sharded_like(leaf, stats.mean)", "leaf"),
    ),
    "bring groups of sharded rows together": (
        "jbn/_numerics/sharding.py",
        ("groups % math.prod(mesh.shape[name] for name in names)", "True"),
    ),
    "retrace when momentum changes": (
        "jbn/_batch_norm.py",
        ('static_argnames="devices"', 'static_argnames=("devices", "weights")'),
    ),
}


def first_failure(name: str) -> str | None:
    """The first test that fails with this mistake made, or None."""
    file, *edits = MUTATIONS[name]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs"))
        code = (copy / file).read_text()
        for right, wrong in edits:
            if right not in code:
                sys.exit(f"{name}: {file} no longer reads {right!r}")
            code = code.replace(right, wrong)
        (copy / file).write_text(code)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", *TESTS]
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
