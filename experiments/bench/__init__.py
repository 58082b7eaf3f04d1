"""`python -m experiments bench NAME`: jbn beside the others, measured.

Nothing that imports JAX is imported here at the top: `train` gives its processes devices of their
own, and the rest of the measurements want the one device, on every thread, that users have.
"""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from experiments.system.devices import compile_for_absent_chips, find_devices
from experiments.system.files import check_writable

if TYPE_CHECKING:
    from experiments.bench.output import Report


def _read_shape(words: list[str]) -> tuple[int, ...]:
    shape = tuple(int(size) for size in words[0].split("x"))
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(f"a shape is written as 8192x1024 or 32x32x32x64, got {words[0]!r}.")
    return shape


Shape = Annotated[
    tuple[int, ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="NxC",
        instance_from_str=_read_shape,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda shape: ["x".join(map(str, shape))],
    ),
]
Count = Annotated[
    int,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda words: _positive(int(words[0])),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    ),
]


def _positive(number: int) -> int:
    if number < 1:
        raise ValueError(f"must be at least 1, got {number}.")
    return number


def main(arguments: Sequence[str], prog: str = "python -m experiments bench") -> None:
    """Runs one benchmark, prints its tables, and with `--out` writes them as CSV and Markdown.

    Raises:
      OutputError: when the folder cannot be written to, before anything is measured.
      DeviceError: when the devices that were asked for are not there.
      TargetError: when what compiles for a chip is not installed.
    """

    def finish(name: str, measure: Callable[[], "Report"], out: Path | None) -> None:
        if out is not None:
            check_writable(out / f"{name}.csv")
            check_writable(out / f"{name}.md")
        if name != "train":  # its processes find theirs
            find_devices()
        from experiments.bench.output import publish

        publish(measure(), out, command=_command(prog, arguments))

    def op(
        shapes: tuple[Shape, ...] = (),
        dtypes: tuple[Literal["float32", "bfloat16"], ...] = (),
        rounds: Count = 10,
        seed: int = 0,
        out: Path | None = None,
    ) -> None:
        """Time one batch norm: forward alone, and with all gradients for a given cotangent.

        Args:
            shapes: Shapes of x, features last; by default a table from 60x100 to 65536x256.
            dtypes: Types of x; by default float32, and on a GPU bfloat16 too.
            rounds: In each round every library is timed once, in random order.
            seed: Of the inputs and of the order.
            out: Folder for op.csv and op.md; without it nothing is written.
        """
        from experiments.bench import op

        finish("op", lambda: op.measure(shapes, dtypes, rounds=rounds, seed=seed), out)

    def sweeps(
        shapes: tuple[Shape, ...] = (), rounds: Count = 10, seed: int = 0, out: Path | None = None
    ) -> None:
        """Time one batch norm of jbn with a running mean that is near, and that is off.

        Args:
            shapes: Shapes of x, features last; by default four from 128x512 to 8192x1024.
            rounds: In each round every case is timed once, in random order.
            seed: Of the inputs and of the order.
            out: Folder for sweeps.csv and sweeps.md; without it nothing is written.
        """
        from experiments.bench import sweeps

        finish("sweeps", lambda: sweeps.measure(shapes, rounds=rounds, seed=seed), out)

    def accuracy(rows: Count = 4096, seed: int = 0, out: Path | None = None) -> None:
        """Compare y, variance and dx with extended precision, on hard inputs.

        Args:
            rows: Rows of the inputs whose family does not fix them.
            seed: Of the inputs.
            out: Folder for accuracy.csv and accuracy.md; without it nothing is written.
        """
        from experiments.bench import accuracy

        finish("accuracy", lambda: accuracy.measure(rows=rows, seed=seed), out)

    def memory(
        width: Count = 1024, batch: Count = 8192, layers: Count = 10, out: Path | None = None
    ) -> None:
        """Count the arrays that layers of Dense, batch norm, ReLU hold between the two passes.

        Args:
            width: Features of every layer.
            batch: Examples.
            layers: How many times Dense, batch norm, ReLU.
            out: Folder for memory.csv and memory.md; without it nothing is written.
        """
        from experiments.bench import memory

        finish("memory", lambda: memory.measure(width=width, batch=batch, layers=layers), out)

    def train(
        steps: Count = 1000,
        runs: Count = 8,
        rounds: Count = 5,
        networks: tuple[Literal["mlp", "cnn"], ...] = (),
        out: Path | None = None,
    ) -> None:
        """Time whole training: this project's runner, a Flax loop and a PyTorch loop.

        Args:
            steps: Steps of each run in each round, counted in thousands; of the CNN a tenth.
            runs: Runs that the runner trains at once.
            rounds: In each round every contender trains once, in random order.
            networks: What is trained; by default both. PyTorch trains the MLP alone.
            out: Folder for train.csv and train.md; without it nothing is written.
        """
        from experiments.bench import train

        finish(
            "train",
            lambda: train.measure(steps=steps, runs=runs, rounds=rounds, networks=networks),
            out,
        )

    def compile(rounds: Count = 5, seed: int = 0, out: Path | None = None) -> None:
        """Take the CPU time to compile a training step of a ResNet, in processes of their own.

        Args:
            rounds: Processes for each norm.
            seed: Of the order.
            out: Folder for compile.csv and compile.md; without it nothing is written.
        """
        from experiments.bench import compile

        finish("compile", lambda: compile.measure(rounds=rounds, seed=seed), out)

    def layers(
        dtypes: tuple[Literal["float32", "bfloat16"], ...] = (),
        width: Count = 1024,
        batch: Count = 8192,
        layers: Count = 10,
        rounds: Count = 10,
        seed: int = 0,
        out: Path | None = None,
    ) -> None:
        """Time a step of layers with and without the loop in which a norm may sweep again.

        Args:
            dtypes: Types of x; by default float32, and on a GPU bfloat16 too.
            width: Features of every layer.
            batch: Examples.
            layers: How many times Dense, norm, ReLU.
            rounds: In each round every case is timed once, in random order.
            seed: Of the inputs and of the order.
            out: Folder for layers.csv and layers.md; without it nothing is written.
        """
        from experiments.bench import layers as bench

        finish(
            "layers",
            lambda: bench.measure(
                dtypes, width=width, batch=batch, layers=layers, rounds=rounds, seed=seed
            ),
            out,
        )

    def gpu(out: Path, rehearse: bool = False) -> None:
        """Measure all that runs on a GPU, in five minutes; a part that fails costs no other.

        Args:
            out: Folder for the files of op, accuracy, layers and train.
            rehearse: Small sizes: whether it works, on any machine.
        """
        from experiments.bench import gpu

        gpu.main(out, rehearse=rehearse)

    def compiled(
        targets: tuple[Literal["tpu", "h100"], ...] = (),
        programs: tuple[Literal["norm", "dense", "conv", "runner"], ...] = (),
        placements: tuple[Literal["one", "jit", "axis_name"], ...] = (),
        dtypes: tuple[Literal["float32", "bfloat16"], ...] = (),
        modes: tuple[Literal["forward", "all gradients"], ...] = (),
        names: tuple[Literal["jbn", "flax.linen", "flax.nnx"], ...] = (),
        mib: Count = 256,
        layers: Count = 10,
        out: Path | None = None,
    ) -> None:
        """Compile for a TPU v5e and an H100, which need not be here, and count what that gives.

        Needs the extra `aot`. Of each kind all are compiled unless some are named.

        Args:
            targets: The chips.
            programs: One norm; layers of Dense or Conv, norm and ReLU; those that make compare
                runs, of which all are compiled whatever else is named.
            placements: One device; four with a sharded batch under plain jit, or with shard_map
                and axis_name.
            dtypes: Types of x.
            modes: Forward alone, or with all gradients.
            names: Whose batch norm.
            mib: Size of x on each device in MiB. A TPU keeps 128 on its chip.
            layers: How many times Dense or Conv, norm, ReLU.
            out: Folder for compiled.csv and compiled.md; without it nothing is written.
        """
        compile_for_absent_chips()
        from experiments.bench import compiled
        from experiments.bench.programs import Scale

        selection = compiled.Selection(targets, programs, placements, dtypes, modes, names)
        scale = Scale(mib * compiled.MIB, layers)
        finish("compiled", lambda: compiled.measure(selection, scale), out)

    def verdicts(studies: Count = 400, seed: int = 0, out: Path | None = None) -> None:
        """Simulate studies of known effects, and count how often a verdict is wrong.

        Args:
            studies: Of each case.
            seed: Of all draws.
            out: Folder for verdicts.csv and verdicts.md; without it nothing is written.
        """
        from experiments.bench import verdicts

        finish("verdicts", lambda: verdicts.measure(studies, seed), out)

    tyro.extras.subcommand_cli_from_dict(
        {
            "op": op,
            "sweeps": sweeps,
            "accuracy": accuracy,
            "memory": memory,
            "train": train,
            "compile": compile,
            "layers": layers,
            "gpu": gpu,
            "compiled": compiled,
            "verdicts": verdicts,
        },
        prog=prog,
        description="Measure jbn beside Flax, Haiku, Equinox, Keras and PyTorch.",
        args=arguments,
    )


def _command(prog: str, arguments: Sequence[str]) -> str:
    """Returns what a reader would type to repeat this: with a folder of their own."""
    words = []
    for i, word in enumerate(arguments):
        after_out = i > 0 and arguments[i - 1] == "--out"
        words.append("DIR" if after_out else "--out=DIR" if word.startswith("--out=") else word)
    return f"{prog} {shlex.join(words)}"
