"""The batch norms that are compared, each as its users call it, behind one way to call them.

With momentum 0 every library's new running statistics are those of the batch, whatever its
convention, and can be checked. Each is asked for a `y` of the type of `x`, with a float32 scale
and bias.
"""

# The rivals need not be here.
# pyright: reportMissingImports=false

import importlib
import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Literal, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np

import jbn
from experiments.bench.reference import Problem
from jbn import Affine, RunningStats

Mode = Literal["forward", "all gradients"]
Apply = Callable[..., tuple[jax.Array, RunningStats]]

BASELINE = "flax.linen"


class Rival(Protocol):
    """A library's batch norm on arrays of its own."""

    @property
    def name(self) -> str: ...

    def put(self, problem: Problem) -> Any:
        """Returns the problem as the library's arrays, on the device."""
        ...

    def call(self, mode: Mode, inputs: Any) -> dict[str, Any]:
        """Calls it once, to the end: y, mean, var, and in the second mode dx, dscale and dbias."""
        ...

    def numbers(self, outputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Returns what `call` returned, in numpy's float64."""
        ...

    def repeat(self, mode: Mode, pool: Sequence[Any], times: int) -> Callable[[], float]:
        """Makes a function that runs each input of the pool so often, and returns the seconds."""
        ...


class JaxRival(NamedTuple):
    """A batch norm in JAX: `apply(x, affine, stats, epsilon=...)` returns y and new statistics."""

    name: str
    apply: Apply

    def put(self, problem: Problem) -> tuple[Any, ...]:
        return (*jax.device_put(problem[:4]), problem.epsilon)

    def call(self, mode: Mode, inputs: Any) -> dict[str, jax.Array]:
        return jax.block_until_ready(_jitted(self.apply, mode, inputs[-1])(*inputs[:-1]))

    def numbers(self, outputs: dict[str, Any]) -> dict[str, np.ndarray]:
        return {name: np.asarray(array).astype(np.float64) for name, array in outputs.items()}

    def repeat(self, mode: Mode, pool: Sequence[Any], times: int) -> Callable[[], float]:
        from experiments.bench.measure import loop_on_device

        calls = [partial(_call, self.apply, mode, inputs[-1]) for inputs in pool]
        return loop_on_device(calls[0], [inputs[:-1] for inputs in pool], times)


def _call(apply: Apply, mode: Mode, epsilon: float, x, cotangent, scale, bias):
    stats = RunningStats(jnp.zeros_like(scale), jnp.ones_like(scale))

    def normalized(x: jax.Array, affine: Affine) -> tuple[jax.Array, RunningStats]:
        y, new = apply(x, affine, stats, epsilon=epsilon)
        return y.astype(x.dtype), new

    if mode == "forward":
        y, new = normalized(x, Affine(scale, bias))
        return {"y": y, **new._asdict()}
    y, pullback, new = jax.vjp(normalized, x, Affine(scale, bias), has_aux=True)
    dx, (dscale, dbias) = pullback(cotangent)
    return {"y": y, **new._asdict(), "dx": dx, "dscale": dscale, "dbias": dbias}


@cache
def _jitted(apply: Apply, mode: Mode, epsilon: float) -> Callable[..., dict[str, jax.Array]]:
    return jax.jit(partial(_call, apply, mode, epsilon))


def _jbn(x, affine, stats, *, epsilon, axis_name=None):
    return jbn.batch_norm(x, affine, stats, momentum=0.0, epsilon=epsilon, axis_name=axis_name)


def _linen(x, affine, stats, *, epsilon, fast, axis_name=None):
    import flax.linen as nn

    layer = nn.BatchNorm(
        False,
        momentum=0.0,
        epsilon=epsilon,
        dtype=x.dtype,
        axis_name=axis_name,
        use_fast_variance=fast,
    )
    variables = {"params": affine._asdict(), "batch_stats": stats._asdict()}
    y, updated = cast(tuple[Any, Any], layer.apply(variables, x, mutable=["batch_stats"]))
    return y, RunningStats(**updated["batch_stats"])


_linen_one_pass, _linen_two_passes = (partial(_linen, fast=fast) for fast in (True, False))


def _nnx(x, affine, stats, *, epsilon, axis_name=None):
    from flax import nnx

    layer = nnx.BatchNorm(
        x.shape[-1],
        use_running_average=False,
        momentum=0.0,
        epsilon=epsilon,
        dtype=x.dtype,
        axis_name=axis_name,
        rngs=nnx.Rngs(0),
    )
    for name, value in (affine._asdict() | stats._asdict()).items():
        getattr(layer, name).set_value(value)
    return layer(x), RunningStats(layer.mean.get_value(), layer.var.get_value())


def _haiku(x, affine, stats, *, epsilon):
    import haiku as hk

    def forward(x):
        return hk.BatchNorm(True, True, decay_rate=0.0, eps=epsilon)(x, is_training=True)

    # In Haiku everything has the type of x.
    wide = (1,) * (x.ndim - 1) + x.shape[-1:]
    scale, bias, mean, var = (v.astype(x.dtype).reshape(wide) for v in (*affine, *stats))
    averages = [
        {"counter": jnp.int32(0), "hidden": jnp.zeros_like(v), "average": v} for v in (mean, var)
    ]
    names = ("batch_norm/~/mean_ema", "batch_norm/~/var_ema")
    params = {"batch_norm": {"scale": scale, "offset": bias}}
    y, new = hk.transform_with_state(forward).apply(params, dict(zip(names, averages)), None, x)
    return y, RunningStats(*(new[name]["average"].reshape(-1) for name in names))


def _equinox(x, affine, stats, *, epsilon):
    import equinox as eqx

    layer, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        x.shape[-1], "batch", eps=epsilon, momentum=0.0, mode="batch"
    )
    layer = eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, tuple(affine))
    state = state.set(layer.batch_state_index, tuple(stats))
    # Equinox has features first. One row per example spares it the transposition of images.
    rows = x.reshape(-1, x.shape[-1])
    over_batch = jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    y, state = over_batch(rows, state)
    return y.reshape(x.shape), RunningStats(*state.get(layer.batch_state_index))


def _keras(x, affine, stats, *, epsilon):
    layer = _keras_layer(x.ndim, x.shape[-1], str(x.dtype), epsilon)
    y, new = layer.stateless_call(list(affine), list(stats), x, training=True)
    return y, RunningStats(*new)


@cache
def _keras_layer(ndim: int, features: int, dtype: str, epsilon: float) -> Any:
    import keras

    policy = dtype if dtype == "float32" else f"mixed_{dtype}"
    with jax.ensure_compile_time_eval():
        layer = keras.layers.BatchNormalization(momentum=0.0, epsilon=epsilon, dtype=policy)
        layer.build((None,) * (ndim - 1) + (features,))
    return layer


class TorchRival:
    """PyTorch, eager as its users run it; images as a channels-last view of the same memory."""

    name = "PyTorch"

    def __init__(self) -> None:
        import torch

        self.torch = torch
        if jax.default_backend() != "cpu" and not torch.cuda.is_available():
            raise ImportError(f"torch {torch.__version__} has no CUDA here")
        self.device = "cpu" if jax.default_backend() == "cpu" else "cuda"

    def put(self, problem: Problem) -> tuple[Any, ...]:
        def tensor(array: np.ndarray, dtype: str) -> Any:
            # By way of float32, which holds every bfloat16: torch does not know numpy's.
            wide = self.torch.from_numpy(array.astype(np.float32))
            return wide.to(self.device, getattr(self.torch, dtype))

        dtype = str(problem.x.dtype)
        x, cotangent = (tensor(a, dtype).movedim(-1, 1) for a in (problem.x, problem.cotangent))
        scale, bias = (tensor(a, "float32") for a in (problem.scale, problem.bias))
        leaves = tuple(leaf.requires_grad_() for leaf in (x, scale, bias))
        stats = self.torch.zeros_like(scale), self.torch.ones_like(scale)
        return leaves, cotangent, stats, problem.epsilon

    def call(self, mode: Mode, inputs: Any) -> dict[str, Any]:
        outputs = self._enqueue(mode, inputs)
        if self.device == "cuda":
            self.torch.cuda.synchronize()
        return outputs

    def _enqueue(self, mode: Mode, inputs: Any) -> dict[str, Any]:
        (x, scale, bias), cotangent, (mean, var), epsilon = inputs
        with self.torch.set_grad_enabled(mode != "forward"):
            y = self.torch.nn.functional.batch_norm(
                x, mean, var, scale, bias, training=True, momentum=1.0, eps=epsilon
            )
        outputs = {"y": y, "mean": mean, "var": var}
        if mode == "forward":
            return outputs
        gradients = self.torch.autograd.grad(y, (x, scale, bias), cotangent)
        return outputs | dict(zip(("dx", "dscale", "dbias"), gradients))

    def numbers(self, outputs: dict[str, Any]) -> dict[str, np.ndarray]:
        arrays = {
            name: tensor.detach().double().movedim(1, -1) if tensor.ndim > 1 else tensor.double()
            for name, tensor in outputs.items()
        }
        values = {name: tensor.detach().cpu().numpy() for name, tensor in arrays.items()}
        n = values["y"].size // values["y"].shape[-1]
        # Its running variance is the unbiased one.
        return values | {"var": values["var"] * (n - 1) / n}

    def repeat(self, mode: Mode, pool: Sequence[Any], times: int) -> Callable[[], float]:
        cuda = self.torch.cuda

        def once() -> None:
            for inputs in pool:
                self._enqueue(mode, inputs)

        # Recorded once and replayed: the calls then follow each other without Python between.
        aside = cuda.Stream()
        aside.wait_stream(cuda.current_stream())
        with cuda.stream(aside):
            for _ in range(3):
                once()
        cuda.current_stream().wait_stream(aside)
        recording = cuda.CUDAGraph()
        with cuda.graph(recording):
            once()

        def seconds() -> float:
            start, end = (cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(times):
                recording.replay()
            end.record()
            cuda.synchronize()
            return start.elapsed_time(end) / 1000

        return seconds


class Field(NamedTuple):
    """Who takes part, and who does not and why."""

    rivals: list[Rival]
    absent: dict[str, str]


def find_rivals() -> Field:
    """Returns jbn and every library that imports here; the others by name, with the reason."""
    field = Field([], {})
    for name, (module, make) in _FIELD.items():
        try:
            if module == "keras":
                os.environ.setdefault("KERAS_BACKEND", "jax")
            imported = importlib.import_module(module)
            if module == "keras" and imported.backend.backend() != "jax":
                raise ImportError("its backend here is not JAX: set KERAS_BACKEND=jax")
            field.rivals.append(make() if make is TorchRival else JaxRival(name, make))
        except ImportError as error:
            field.absent[name] = str(error)
    return field


_FIELD: dict[str, tuple[str, Any]] = {
    "jbn": ("jbn", _jbn),
    BASELINE: ("flax.linen", _linen_one_pass),
    "flax.linen, two passes": ("flax.linen", _linen_two_passes),
    "flax.nnx": ("flax.nnx", _nnx),
    "Haiku": ("haiku", _haiku),
    "Equinox": ("equinox", _equinox),
    "Keras": ("keras", _keras),
    "PyTorch": ("torch", TorchRival),
}
