"""Memory that a study needs at least, found out before anything is compiled or written."""

import math
import os

import jax
import jax.numpy as jnp

from experiments.runner.variables import variables
from experiments.study.config import Study, networks_of, swept
from experiments.study.examples import SPLITS
from experiments.study.measure import BINS, PERCENTILES
from experiments.study.model import Model
from experiments.study.trace import Traced
from experiments.study.train import make_run
from experiments.study.values import ConfigError
from experiments.study.windows import evaluation_steps

# What is measured is held in memory once, and written from there as a whole.
COPIES = 2


def check_size(traced: Traced) -> None:
    """Checks that batches, networks and measurements of a study fit into this machine.

    Raises:
        ConfigError: naming the field that makes one of them too large.
    """
    study, memory = traced.study, _memory()
    runs = len(study.learning_rates) * len(study.seeds)

    def refuse(place: str, size: float, needs: str) -> None:
        if size > memory:
            raise ConfigError(
                f"{place}: {needs} {size / 2**30:.3g} GiB, and this machine has "
                f"{memory / 2**30:.3g}."
            )

    batch = 4 * study.batch_size * math.prod(traced.examples.shape)
    refuse(f"batch_size={study.batch_size}", batch, "a batch needs")
    often = f"steps={study.steps} with evaluate_every={study.evaluate_every}"
    networks = len(networks_of(study))
    needs = f"{runs * networks} runs' measurements need"
    refuse(often, COPIES * measured_bytes(traced), needs)
    if jax.default_backend() != "cpu":  # then networks lie in another memory
        return
    for label, model in traced.models.items():
        network_runs = runs * len(swept(study, model.norm))
        refuse(
            f"network with norms[{label!r}]",
            network_runs * _state_bytes(study, model),
            f"{network_runs} runs need",
        )


def measured_bytes(traced: Traced) -> int:
    """Returns the bytes of the dataset of a study."""
    study = traced.study
    early = len(evaluation_steps(study.evaluate_every, study.evaluate_every)) - 1
    sizes = {
        "norm": len(networks_of(study)),
        "learning_rate": len(study.learning_rates),
        "seed": len(study.seeds),
        "step": early + study.steps // study.evaluate_every,
        "layer": len(traced.layers),
        "place": len(traced.places) + 1,
        "percentile": len(PERCENTILES),
        "bin": BINS,
        **{f"{split}_example": len(traced.examples.split(split)[1]) for split in SPLITS},
    }
    measured = variables(study.task, has_validation=traced.examples.has_validation)
    return sum(
        math.prod(sizes[dim] for dim in variable.dims) * variable.dtype().itemsize
        for variable in measured.values()
    )


def _state_bytes(study: Study, model: Model) -> int:
    """Returns the bytes of one run's weights, optimizer and other variables."""
    values = dict.fromkeys(swept(study, model.norm)[0], jnp.float32(0))
    run = make_run(study, model)
    state = jax.eval_shape(run.init, None, jnp.uint32(0), jnp.float32(0), values)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
