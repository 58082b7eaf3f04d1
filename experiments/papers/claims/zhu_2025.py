"""Zhu et al. 2025: dynamic tanh takes layer norm's place; whether it takes batch norm's."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import (
    Check,
    Claim,
    Line,
    Outcome,
    Plot,
    Setting,
    at_least,
    between,
    once,
)
from experiments.papers.tools.mlp import MLP, NUM_CLASSES, apply_norm
from experiments.papers.tools.spread import combinations, spread_each
from experiments.papers.tools.stand_ins import NORMS, stand_ins
from experiments.papers.tools.training import (
    Images,
    Task,
    accuracy,
    advance,
    begin,
    relu_task,
    unit_interval,
    with_population_stats,
)
from experiments.study.data import load
from experiments.study.networks import Dense
from jbn import Standard

_DEPTH = 6
_BLOCKS = 4
_WIDTH = 64
_BATCH_SIZE = 64
_RATES = np.array([0.03, 0.1, 0.3, 1.0], np.float32)
_LAST = 50


class ResidualMLP(MLP):
    """Blocks `h + W2 ReLU(W1 norm(h))` and a last norm, as in a transformer.

    One block for each of `widths`.
    """

    @nn.compact
    def __call__(
        self, x: jax.Array, *, use_running_average: bool, momentum: float | None = None
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Class scores, and what each block adds; see `MLP`."""
        h, added = Dense(_WIDTH, self.kernel_init, name="input")(x), []
        for i, width in enumerate(self.widths, start=1):
            z = self._normalized(h, i, use_running_average, momentum)
            z = self.activation(Dense(width, self.kernel_init, name=f"hidden_{i}")(z))
            added.append(Dense(_WIDTH, self.kernel_init, name=f"back_{i}")(z))
            h = h + added[-1]
        h = self._normalized(h, len(self.widths) + 1, use_running_average, momentum)
        return Dense(NUM_CLASSES, self.kernel_init, name="output")(h), tuple(added)

    def _normalized(
        self, h: jax.Array, i: int, use_running_average: bool, momentum: float | None
    ) -> jax.Array:
        return apply_norm(self._norm(i, use_running_average), h, momentum)


def plain(norm: Any) -> Task:
    """A chain of layers, the norm before each activation, as in VGG."""
    return relu_task(_DEPTH, norm, _WIDTH)._replace(batch_size=_BATCH_SIZE)


def residual(norm: Any) -> Task:
    """Blocks with a skip connection, the norm first in each."""
    he = jax.nn.initializers.he_normal()
    model = ResidualMLP((_WIDTH,) * _BLOCKS, jax.nn.relu, he, norm)
    return Task(model, _BATCH_SIZE)


def train(
    task: Task, steps: int, images: Images, seed: jax.Array, learning_rate: jax.Array
) -> jax.Array:
    """Training loss over the last steps, and accuracy on the test set: `(2,)`."""
    state, losses = advance(task, images, begin(task, images, seed, learning_rate), steps)
    state = with_population_stats(task, images, state)
    return jnp.stack([jnp.mean(losses[-_LAST:]), accuracy(task, images, state)])


def best(found: np.ndarray) -> tuple[np.ndarray, int]:
    """Accuracy `(seeds,)` at the rate of the lowest mean training loss, and which rate.

    Args:
        found: `(rates, seeds, 2)`; a loss that is not finite is the worst.
    """
    loss = np.nan_to_num(found[..., 0], nan=np.inf).mean(axis=1)
    chosen = int(np.argmin(loss))
    return found[chosen, :, 1], chosen


def _steps(setting: Setting) -> int:
    return setting.pick(full=500, quick=300)


def _seeds(setting: Setting) -> np.ndarray:
    return setting.seeds(full=10, quick=8)


def _rates(setting: Setting) -> np.ndarray:
    return _RATES[:3] if setting.quick else _RATES


def _trained(setting: Setting, tasks: dict[str, Task]) -> dict[str, np.ndarray]:
    """By name, `(rates, seeds, 2)`."""
    seeds, rates = _seeds(setting), _rates(setting)
    runs = {name: partial(train, task, _steps(setting)) for name, task in tasks.items()}
    rate, seed = combinations(rates, seeds)
    found = spread_each(runs, seed, rate, given=(unit_interval(load("digits")),))
    return {name: a.reshape(len(rates), len(seeds), 2) for name, a in found.items()}


@once
def _rivals(setting: Setting) -> dict[str, dict[str, np.ndarray]]:
    """What does not depend on the norm in batch norm's place."""
    both = {name: residual(NORMS[name]) for name in ("layer norm", "dynamic tanh")}
    found = _trained(setting, both | {"plain": plain(NORMS["dynamic tanh"])})
    return {"plain": {"dynamic tanh": found.pop("plain")}, "residual": found}


def measure_with(setting: Setting, norm: Any) -> Outcome:
    """Accuracy of each norm at its own best rate, against that of dynamic tanh."""
    rivals = _rivals(setting)
    chain = _trained(setting, {"batch norm": plain(norm)}) | rivals["plain"]
    blocks = rivals["residual"]
    plots, told, ends = [], [], {}
    for title, found in (("Plain", chain), ("Residual", blocks)):
        rates = _rates(setting)
        lines = [Line(name, rates, a[..., 1].T) for name, a in found.items()]
        plots.append(Plot(title, "learning rate", "test accuracy", lines, log="x"))
        for name, a in found.items():
            ends[title, name], rate = best(a)
            told.append(
                f"{title.lower()}, {name}: {ends[title, name].mean():.3f} at {rates[rate]:.3g}"
            )
    name = "accuracy at each one's best rate"
    checks = [
        Check(
            f"plain, batch norm less dynamic tanh: {name}",
            ends["Plain", "batch norm"] - ends["Plain", "dynamic tanh"],
            at_least(0.01),
            "published",
        ),
        Check(
            f"residual, layer norm less dynamic tanh: {name}",
            ends["Residual", "layer norm"] - ends["Residual", "dynamic tanh"],
            between(-0.02, 0.02),
            "published",
            control=True,
        ),
    ]
    return Outcome(checks, plots, [f"Accuracy at the best rate: {'; '.join(told)}."])


def _describe(setting: Setting) -> str:
    rates = ", ".join(f"{rate:g}" for rate in _rates(setting).tolist())
    return (
        f"Digits; plain: {_DEPTH} hidden layers of {_WIDTH} ReLU, the norm before each activation; "
        f"residual: {_BLOCKS} blocks h + W2 ReLU(W1 norm(h)) of {_WIDTH} and a last norm; He "
        f"initialisation, {_steps(setting)} steps of SGD, batch size {_BATCH_SIZE}, rates "
        f"{rates}: for each norm that with the lowest training loss in the mean over seeds; "
        f"{len(_seeds(setting))} seeds."
    )


DYNAMIC_TANH = Claim(
    name="zhu-dynamic-tanh",
    sentence="Dynamic tanh takes layer norm's place, and not batch norm's.",
    citation="Zhu, Chen, He, LeCun & Liu 2025, Transformers without Normalization, CVPR, "
    "arXiv:2503.10622, which says that ResNet-50 and VGG19 lose accuracy with it in batch "
    "norm's place",
    setup=_describe,
    formula="y = gamma tanh(alpha x) + beta, alpha 0.5 at the start; differences of test accuracy",
    measure=lambda setting: measure_with(setting, Standard()),
    group="further",
    registered="2026-11-28",
    changes=[
        "2026-11-28: layer norm and dynamic tanh were compared in a plain chain of ten layers, "
        "where dynamic tanh stays at chance; now in residual blocks, which it is for "
        "(first without a last norm, where layer norm diverged)."
    ],
    stand_ins=stand_ins(measure_with, must_fail=("dynamic tanh",)),
)
