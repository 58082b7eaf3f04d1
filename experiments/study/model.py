"""A network with the norm under study: its layers and norms found by path, and how it is called."""

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from experiments.study.config import Study, swept
from experiments.study.networks import takes
from experiments.study.norms import OUT, Norm, WeightNorm, weights_known
from experiments.study.tasks import check_outputs
from experiments.study.values import ConfigError, show

Path = tuple[str, ...]


class State(NamedTuple):
    """A network's variables."""

    params: Any
    collections: dict[str, Any]
    """All others, `batch_stats` for example."""


@dataclass(frozen=True)
class Model:
    """A network of a study with one of its norms.

    `values` are those that are swept, which take the place of the study's and may be traced.
    """

    study: Study
    norm: Any
    shape: tuple[int, ...]
    """Of one example."""
    outputs: int
    kernels: tuple[Path, ...] = ()
    """Paths of all parameters with two axes or more, outside of norms, from the input up."""
    places: tuple[str, ...] = ()
    """Paths of what `norm(name)` made, in the order of their calls."""
    has_train: bool = False
    """Whether the network is told by `train=` if it trains, as one with dropout is."""

    @property
    def layers(self) -> list[str]:
        """Names of the layers that `kernels` are of."""
        return ["/".join(p[:-1] if p[-1] == "kernel" and p[1:] else p) for p in self.kernels]

    def init(self, key: jax.Array, values: dict[str, Any]) -> State:
        """Returns the initial variables."""
        norm = self._norm(values).in_training()
        x = jnp.zeros((self.study.batch_size, *self.shape))
        return _state(self._call(norm, values, "init", key, x, train=True))

    def train(
        self,
        state: State,
        x: jax.Array,
        values: dict[str, Any],
        *,
        noise: tuple[jax.Array, ...] = (),
        dropout: jax.Array | None = None,
        axis_name: str | None = None,
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Returns outputs with the batch's own statistics, and what other variables become.

        Args:
            state: The variables.
            x: Inputs `(N, *shape)`.
            values: What is swept.
            noise: Numbers that a norm's random keys take in.
            dropout: A key for what in the network is called with `train=True`.
            axis_name: The axis of devices that the batch is spread over.
        """
        norm = self._norm(values).fold_in(*noise).in_training(axis_name)
        return self._update(norm, state, x, values, dropout)

    def of_population(self, state: State, x: jax.Array, values: dict[str, Any]) -> State:
        """Returns the variables with running statistics of `x` alone, at these weights."""
        norm = self._norm(values)
        if norm.is_stateless and not state.collections:
            return state
        _, collections = self._update(norm.of_population(), state, x, values, None, train=False)
        return state._replace(collections=collections)

    def infer(
        self, state: State, x: jax.Array, values: dict[str, Any]
    ) -> tuple[jax.Array, list[jax.Array]]:
        """Returns outputs with running statistics, and what each of the `places` gave out."""
        norm = self._norm(values).at_inference()
        variables = {"params": state.params, **state.collections}
        outputs, collections = self._call(
            norm, values, "apply", variables, x, train=False, mutable=["intermediates"]
        )
        given: Any = flatten_dict(collections.get("intermediates", {}), sep="/")
        return outputs, [given[f"{place}/{OUT}"][-1] for place in self.places]

    def kernels_of(self, tree: Any) -> list[jax.Array]:
        """Returns the kernels in a tree of parameters, of gradients or of updates."""
        flat: Any = flatten_dict(tree)
        return [flat[path] for path in self.kernels]

    def _norm(self, values: dict[str, Any]) -> Norm:
        fields = {name: getattr(self.study, name) for name in ("momentum", "epsilon")}
        fields |= {name: value for name, value in values.items() if name in fields}
        return Norm.of(self.norm, self.places, **fields)

    def _update(
        self, norm: Norm, state: State, x: Any, values: Any, dropout: Any, train: bool = True
    ) -> tuple[jax.Array, dict[str, Any]]:
        variables = {"params": state.params, **state.collections}
        options: dict[str, Any] = {}
        if dropout is not None and self.has_train:
            options["rngs"] = {"dropout": dropout}
        outputs, updated = self._call(
            norm,
            values,
            "apply",
            variables,
            x,
            train=train,
            mutable=[*state.collections],
            **options,
        )
        return outputs, state.collections | dict(updated)

    def _call(
        self, norm: Norm, values: Any, method: str, *arguments: Any, train: bool, **options: Any
    ) -> Any:
        module = self._module(norm, values)
        if takes(type(module).__call__, "train"):
            options["train"] = train
        with weights_known() if isinstance(norm.layer, WeightNorm) else nullcontext():
            return getattr(module, method)(*arguments, **options)

    def _module(self, norm: Norm, values: dict[str, Any]) -> nn.Module:
        network = self.study.network
        std = values.get("init_std", self.study.init_std)
        if std is not None:
            network = dataclasses.replace(network, init_std=std)
        options = {"outputs": self.outputs} if takes(network, "outputs") else {}
        module = network(norm, **options)
        if not isinstance(module, nn.Module):
            raise ConfigError(f"network: needs to return a Flax module, returned {show(module)}.")
        return module


def find_model(study: Study, norm: Any, shape: tuple[int, ...], outputs: int) -> Model:
    """Returns the network of `study` with `norm`, its layers and norms found by tracing it.

    Raises:
        ConfigError: when it has none.
    """
    model = Model(study, norm, shape, outputs)
    traced: list[Any] = []

    def look(key: jax.Array, values: dict[str, jax.Array]) -> None:
        # Flax keeps variables in the order in which the network makes them; a pytree would not.
        state = model.init(key, values)
        x = jnp.zeros((study.batch_size, *shape))
        variables = {"params": state.params, **state.collections}
        inferring = model._norm(values).at_inference()
        outputs, collections = model._call(
            inferring, values, "apply", variables, x, train=False, mutable=["intermediates"]
        )
        check_outputs(study.task, outputs, study.batch_size, model.outputs)
        has_train = takes(type(model._module(inferring, values)).__call__, "train")
        traced.extend(
            (
                flatten_dict(state.params),
                flatten_dict(collections.get("intermediates", {})),
                has_train,
            )
        )

    values = dict.fromkeys(swept(study, norm)[0], jnp.float32(1))
    jax.eval_shape(look, jax.random.key(0), values)
    params, given, has_train = traced
    places = tuple("/".join(path[:-1]) for path in given if path[-1] == OUT)
    if not places:
        raise ConfigError("network: has no place for a norm: norm(name)(x) is called nowhere.")
    kernels = tuple(
        path
        for path, leaf in params.items()
        if leaf.ndim > 1 and not "/".join(path).startswith(tuple(f"{p}/" for p in places))
    )
    if not kernels:
        raise ConfigError("network: has no layer: no parameter with two axes or more.")
    return dataclasses.replace(model, kernels=kernels, places=places, has_train=has_train)


def _state(variables: Any) -> State:
    variables = dict(variables)
    params = variables.pop("params", {})
    return State(params, {name: v for name, v in variables.items() if name != "intermediates"})
