"""The programs by which `make compare` trains, for devices that need not be there."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.study.load import load_studies
from experiments.study.sweep import make_mesh, make_sweep
from experiments.study.trace import trace

STUDY = Path(__file__).parents[2] / "configs" / "digits.py"


def make(devices: Sequence[Any]) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Yields each network's name and, jitted, `init`, `advance` and `evaluate` with arguments.

    All runs, spread over `devices`; the arguments have no numbers.
    """
    [study] = load_studies(STUDY).values()
    mesh = make_mesh(devices)
    traced = trace(study)
    everywhere = NamedSharding(mesh, P())
    examples = _placed(jax.eval_shape(lambda: traced.examples), everywhere)
    for network, model in traced.models.items():
        sweep = make_sweep(study, model, mesh)
        states = _placed(jax.eval_shape(sweep.init, examples), sweep.sharding)
        numbers = _placed(jax.eval_shape(lambda sweep=sweep: sweep.numbers), everywhere)
        yield network, sweep.begin, (examples, *numbers)
        yield network, sweep.advance, (examples, states)
        yield network, sweep.evaluate, (examples, states)


def _placed(tree: Any, sharding: NamedSharding) -> Any:
    return jax.tree.map(lambda leaf: leaf.update(sharding=sharding), tree)
