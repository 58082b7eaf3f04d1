"""The programs by which `make compare` trains, for devices that need not be there."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.study import data
from experiments.study.config import load_studies
from experiments.study.sweep import make_mesh, make_sweep

STUDY = Path(__file__).parents[2] / "configs" / "digits.py"


def make(devices: Sequence[Any]) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Of each network its name and, jitted, `init`, `advance` and `evaluate` with their arguments.

    All runs, spread over `devices`; the arguments have no numbers.
    """
    [study] = load_studies(STUDY).values()
    mesh = make_mesh(devices)
    images = _placed(jax.eval_shape(lambda: data.load(study.data)), NamedSharding(mesh, P()))
    for network, norm in study.norms.items():
        sweep = make_sweep(study, norm, mesh)
        states = _placed(jax.eval_shape(sweep.init, images), sweep.sharding)
        yield network, sweep.init, (images,)
        yield network, sweep.advance, (images, states)
        yield network, sweep.evaluate, (images, states)


def _placed(tree: Any, sharding: NamedSharding) -> Any:
    return jax.tree.map(lambda leaf: leaf.update(sharding=sharding), tree)
