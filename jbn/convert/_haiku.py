"""Batch norms out of, and into, Haiku's `params` and `state`, which hold debiased averages."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from jbn.convert._formats import HAIKU
from jbn.convert._norms import SATURATED_COUNT, Layers, Use, read_norms, write_norms
from jbn.convert._state import open_haiku


def from_haiku(
    params: Mapping[str, Any],
    state: Mapping[str, Any],
    *,
    prefix: str = "",
    use_scale: Use = True,
    use_bias: Use = True,
    ignore: Collection[str] = (),
) -> Layers:
    """Returns the batch norms of Haiku's `params` and `state`, by module (`"net/~/batch_norm"`).

    Takes the zero-debiased `average`, which is what Haiku normalises with; `hidden` and `counter`
    only matter to the next step: see `jbn.debiased_momentum`. Other arguments and errors: as
    `from_torch`.
    """
    return read_norms(open_haiku(params, state), prefix, use_scale, use_bias, ignore)


def to_haiku(
    layers: Layers,
    *,
    ndim: int,
    step: int | None = None,
    momentum: float | None = None,
    use_scale: Use = True,
    use_bias: Use = True,
) -> tuple[dict[str, Any], dict[str, Any]]:
    r"""Returns Haiku's `params` and `state`.

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
    remembered = 0.0 if step is None or momentum is None else momentum**step
    params: dict[str, Any] = {}
    state: dict[str, Any] = {}
    for path, arrays in write_norms(HAIKU, layers, use_scale, use_bias).items():
        for name, vector in arrays.items():
            vector = vector.reshape((1,) * (ndim - 1) + (-1,))
            if "/" not in name:
                params.setdefault(path, {})[name] = vector
            else:
                module = f"{path}/{name.removesuffix('/average')}"
                state[module] = {
                    "average": vector,
                    "hidden": (vector * (1 - remembered)).astype(vector.dtype),
                    "counter": np.asarray(SATURATED_COUNT if step is None else step, np.int32),
                }
    return params, state
