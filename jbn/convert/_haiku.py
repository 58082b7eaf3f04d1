"""Haiku: zero-debiased averages, and vectors with as many axes as the layer's input."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jbn.convert._states import LONG_AGO, Layers, Names, flatten, read, write

_HAIKU = Names(
    "Haiku", "/", ("", "scale"), ("", "offset"), ("", "~/mean_ema/average"),
    ("", "~/var_ema/average"),
    others=tuple(
        ("", f"~/{of}_ema/{name}") for of in ("mean", "var") for name in ("hidden", "counter")
    ),
    squeeze=True,
)  # fmt: skip


def from_haiku(
    params: Mapping[str, Any],
    state: Mapping[str, Any],
    *,
    prefix: str = "",
    use_scale: bool = True,
    use_bias: bool = True,
) -> Layers:
    """The batch norms of Haiku's `params` and `state`, by module name (`"net/~/batch_norm"`).

    Takes the zero-debiased `average`, which is what Haiku normalises with; `hidden` and `counter`
    only matter to the next step: see `jbn.debiased_momentum`. Other arguments and errors: as
    `from_torch`.
    """
    tree = {**flatten(params, "/"), **flatten(state, "/")}
    return read(_HAIKU, tree, prefix, use_scale, use_bias)


def to_haiku(
    layers: Layers,
    *,
    ndim: int,
    step: int | None = None,
    momentum: float | None = None,
    use_scale: bool = True,
    use_bias: bool = True,
) -> tuple[dict[str, Any], dict[str, Any]]:
    r"""Haiku's `params` and `state`.

    Haiku keeps $h_t = d\,h_{t-1} + (1 - d)\,\mu_t$ and shows $h_t / (1 - d^t)$.

    Args:
      layers: from any framework, under Haiku's module names.
      ndim: axes of the layers' input, features last: Haiku's vectors have as many.
      step, momentum: the counter $t$ and the decay rate $d$, to continue a young average. Without
        them the counter is so large that Haiku's debiasing changes nothing.
    """
    if (step is None) != (momentum is None):
        raise ValueError(f"give step and momentum both or neither, got {step=}, {momentum=}.")
    if ndim < 1 or (step is not None and step < 1):
        raise ValueError(f"ndim and step must be at least 1, got {ndim=}, {step=}.")
    params, state = {}, {}
    for layer in layers:
        flat = write(_HAIKU, {layer: layers[layer]}, use_scale, use_bias)
        flat = {key: value.reshape((1,) * (ndim - 1) + (-1,)) for key, value in flat.items()}
        params[layer] = {
            key.removeprefix(f"{layer}/"): value
            for key, value in flat.items()
            if "_ema/" not in key
        }
        for of in ("mean", "var"):
            average = flat[f"{layer}/~/{of}_ema/average"]
            remembered = 0.0 if step is None or momentum is None else momentum**step
            state[f"{layer}/~/{of}_ema"] = {
                "average": average,
                "hidden": (average * (1 - remembered)).astype(average.dtype),
                "counter": np.asarray(LONG_AGO if step is None else step, np.int32),
            }
    return {layer: vectors for layer, vectors in params.items() if vectors}, state
