"""All runs of one network as one program: mapped over runs, and the runs spread over devices.

Or, where a study says so, the batch of every run.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.study.config import Study, swept
from experiments.study.convolutions import features_last
from experiments.study.examples import Examples
from experiments.study.model import Model
from experiments.study.norms import is_variant
from experiments.study.train import Measures, Run, RunState, blank, make_run
from experiments.study.values import ConfigError
from experiments.system import machines
from jbn import batch_norm, init


class Sweep(NamedTuple):
    """The functions of `Run`, over runs: every array of a state or a measure has a leading axis.

    That axis has places for runs, in the order of what is swept, then learning rates, then seeds.
    Places without a run fill up the devices: what they hold is never trained (on a CPU), and
    `pick` leaves it out.
    """

    init: Callable[[Examples], RunState]
    advance: Callable[..., tuple[RunState, Measures]]
    """The state that comes in is given up (donated): the one that comes out takes its memory."""
    evaluate: Callable[[Examples, RunState], Measures]
    sharding: NamedSharding
    """Of every array of a state."""
    runs: int
    """How many there are."""
    places: int
    """How many there is room for."""
    begin: Callable[..., RunState]
    """(data, *numbers) -> states."""
    numbers: tuple[Any, ...] = ()
    """Seeds, learning rates and swept values, and which places have a run: what `init` gives it."""

    @property
    def _taken(self) -> np.ndarray:
        # Spread evenly, so that every device has its share.
        return np.arange(self.runs) * self.places // self.runs

    def pick(self, arrays: Any) -> Any:
        """Returns `arrays`, on the host, of the runs alone."""
        return jax.tree.map(lambda x: x[self._taken], arrays)

    def spread(self, arrays: Any) -> Any:
        """Returns `arrays`, of the runs alone, with what there is to be in every place."""
        run_at = np.searchsorted(self._taken, np.arange(self.places), side="right") - 1
        return jax.tree.map(lambda x: np.asarray(x)[run_at], arrays)

    def freeze(self, states: RunState) -> RunState:
        """Returns `states`, on the host, with those frozen that no run has the place of."""
        frozen = np.zeros_like(states.diverged_at)
        frozen[self._taken] = np.asarray(states.diverged_at)[self._taken]
        return states._replace(diverged_at=frozen)

    def of(self, study: Study, networks: Sequence[Mapping[str, float]] = ({},)) -> "Sweep":
        """Returns the same programs for other rates, seeds and values, as many as there is room."""
        runs = [*itertools.product(networks, study.learning_rates, study.seeds)]
        sweep = self._replace(runs=len(runs))
        values, rates, seeds = zip(*runs)
        numbers = (
            np.array(seeds, np.uint32),
            np.array(rates, np.float32),
            {name: np.array([v[name] for v in values], np.float32) for name in values[0]},
        )
        is_run = np.zeros(self.places, bool)
        is_run[sweep._taken] = True
        filled = *sweep.spread(numbers), is_run
        return sweep._replace(init=lambda data: self.begin(data, *filled), numbers=filled)


def make_mesh(
    devices: Sequence[Any] | None = None, axis: Literal["runs", "batch"] = "runs"
) -> Mesh:
    """Makes one axis over `devices`, all of them by default, of all processes."""
    return Mesh(np.array(jax.devices() if devices is None else devices), (axis,))


def mesh_of(study: Study) -> Mesh:
    """Makes a mesh of all devices, for the runs of `study` or for its batches.

    Raises:
        ConfigError: when its batches cannot be spread over as many.
    """
    if not study.data_parallel:
        return make_mesh()
    mesh = make_mesh(axis="batch")
    share, rest = divmod(study.batch_size, mesh.size)
    if rest:
        raise ConfigError(
            f"batch_size={study.batch_size}: needs a multiple of the {mesh.size} devices, with "
            "data_parallel=True."
        )
    for label, norm in study.norms.items():
        try:
            _try_norm(norm, share)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"norms: {label}: with data_parallel=True each of {mesh.size} devices has "
                f"{share} examples. {error}"
            ) from error
    return mesh


def _try_norm(norm: Any, examples: int) -> None:
    """Raises what `norm` raises for as many examples."""
    if is_variant(norm):
        x = jax.ShapeDtypeStruct((examples, 1), jnp.float32)
        jax.eval_shape(lambda x: batch_norm(x, *init(1), variant=norm), x)


def place(data: Examples, mesh: Mesh) -> Examples:
    """Puts `data` on every device of `mesh`."""
    return machines.place(data, NamedSharding(mesh, P()))


def make_sweep(study: Study, model: Model, mesh: Mesh) -> Sweep:
    """Makes programs over `mesh` of every network, learning rate and seed of `study`.

    Runs never meet: a run's numbers do not depend on the others. With an axis "runs" devices do
    not communicate; with an axis "batch" all runs are on every device, which has its share of each
    batch.
    """
    axis_name = "batch" if "batch" in mesh.axis_names else None
    return sweep_of(make_run(study, model, axis_name), study, mesh, swept(study, model.norm))


def sweep_of(
    run: Run, study: Study, mesh: Mesh, networks: Sequence[Mapping[str, float]] = ({},)
) -> Sweep:
    """Makes programs over `mesh` of `run` at every learning rate and seed of `study`.

    For each of `networks`, whose values of what is swept are given.
    """
    runs = len(networks) * len(study.learning_rates) * len(study.seeds)
    platform = mesh.devices.flat[0].platform
    every = over_runs(platform)
    by_runs = "runs" in mesh.axis_names
    # Mapped over, a run that is frozen costs nothing; side by side with others it must be computed.
    unless_frozen = _unless_frozen if by_runs and platform == "cpu" else lambda function: function
    spec = P("runs") if by_runs else P()

    def sharded(function: Callable[..., Any]) -> Callable[..., Any]:
        # A run knows nothing of the mesh, so its loops cannot say that their carries vary over it.
        return jax.shard_map(
            function, mesh=mesh, in_specs=(P(), spec, P()), out_specs=spec, check_vma=False
        )

    # Said of every result: JAX would call a single device's by another name, and compile again.
    sharding = NamedSharding(mesh, spec)
    jit = partial(jax.jit, out_shardings=sharding)

    @jit
    def init(data: Examples, seeds: Any, rates: Any, values: Any, is_run: Any) -> RunState:
        states = jax.vmap(partial(run.init, data))(seeds, rates, values)
        return states._replace(diverged_at=jnp.where(is_run, states.diverged_at, 0))

    @partial(jit, donate_argnums=1)
    def advance(data: Examples, states: RunState, plain: Any = None) -> tuple[RunState, Measures]:
        def of_all(data: Examples, states: RunState, plain: Any) -> tuple[RunState, Measures]:
            return every(unless_frozen(lambda state: run.advance(data, state, plain)))(states)

        return sharded(of_all)(data, states, plain)

    @jit
    def evaluate(data: Examples, states: RunState) -> Measures:
        def of_all(data: Examples, states: RunState, _: None) -> Measures:
            return every(unless_frozen(partial(run.evaluate, data)))(states)

        return sharded(of_all)(data, states, None)

    places = runs + (-runs % mesh.size if by_runs else 0)
    sweep = Sweep(init, advance, evaluate, sharding, runs, places, init)
    return sweep.of(study, networks)


def _unless_frozen(function: Callable[[RunState], Any]) -> Callable[[RunState], Any]:
    """Leaves a run that is frozen as it is, and what would be measured of it blank."""

    def blanks(shapes: Any) -> Any:
        return jax.tree.map(lambda like: jnp.broadcast_to(blank(like), like.shape), shapes)

    def frozen(state: RunState) -> Any:
        shapes = jax.eval_shape(function, state)
        return blanks(shapes) if isinstance(shapes, dict) else (state, blanks(shapes[1]))

    return lambda state: jax.lax.cond(state.diverged_at < 0, function, frozen, state)


def over_runs(platform: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns what makes a function of one run one of many, on one device of `platform`."""
    # A core is filled by one run, whose weights then stay in its cache through a whole window;
    # an accelerator needs all runs at once to be filled.
    if platform == "cpu":
        return lambda function: partial(jax.lax.map, features_last(function))
    return jax.vmap
