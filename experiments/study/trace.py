"""A study before it trains: its data loaded, its networks traced, and what identifies the two."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.study.config import Study, networks_of, swept
from experiments.study.examples import Examples
from experiments.study.model import Model, find_model
from experiments.study.train import make_run
from experiments.study.values import ConfigError, blame


class Traced(NamedTuple):
    """A study whose data is there and whose networks can be compiled."""

    study: Study
    examples: Examples
    models: dict[str, Model]
    """By the labels of `study.norms`."""

    @property
    def layers(self) -> list[str]:
        """Names of the layers with a kernel, from the input up."""
        return next(iter(self.models.values())).layers

    @property
    def places(self) -> list[str]:
        """Names of the places of norms, in order."""
        return [*next(iter(self.models.values())).places]


def trace(study: Study, data_dir: Path | None = None) -> Traced:
    """Loads the data of `study` and traces each of its networks.

    Raises:
        DataError: when the data cannot be had or used.
        ConfigError: when a network, norm, optimizer or task of the user's fails, or does not fit,
            in one line that names the line of the config.
    """
    with blame("data"):
        examples = study.data.load(data_dir, classes=study.task.counts_classes)
    models: dict[str, Model] = {}
    for label, norm in study.norms.items():
        with blame(f"norms[{label!r}]"):
            models[label] = find_model(study, norm, examples.shape, examples.outputs)
        first = next(iter(models.values()))
        for kind in ("layers", "places"):
            own, others = getattr(models[label], kind), getattr(first, kind)
            if own != others:
                raise ConfigError(
                    f"norms[{label!r}]: the network's {kind} are {', '.join(own)}; all networks "
                    f"of a study need the same, here {', '.join(others)}."
                )
    return Traced(study, examples, models)


def identity(traced: Traced) -> dict[str, Any]:
    """Returns what a study can be known by, besides its config, when it goes on.

    Checksums of the data, and of each network's step and evaluation, lowered. The lowered text is
    another one with another version of JAX or kind of device, so these are said too.

    Raises:
        ConfigError: as `trace`.
    """
    programs: dict[str, str] = {}
    for label, model in traced.models.items():
        with blame(f"norms[{label!r}]"):
            programs[label] = _program(traced, model)
    return {
        "networks": [*networks_of(traced.study)],
        "data": traced.examples.sha256(),
        "programs": programs,
        "lowered": f"JAX {jax.__version__} for {jax.default_backend()}",
    }


def _program(traced: Traced, model: Model) -> str:
    run = make_run(traced.study, model)
    data = jax.eval_shape(lambda: traced.examples)
    values = dict.fromkeys(swept(traced.study, model.norm)[0], jnp.float32(0))
    state = jax.eval_shape(run.init, data, jnp.uint32(0), jnp.float32(0), values)
    texts = [jax.jit(run.step).lower(data, state), jax.jit(run.evaluate).lower(data, state)]
    return hashlib.sha256("".join(text.as_text() for text in texts).encode()).hexdigest()
