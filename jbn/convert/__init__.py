"""Models and batch norms of other frameworks in Flax, and back.

`model_from_*` brings the layers of a whole model into a Flax model, `model_to_*` takes them back:
Dense and Conv kernels, norms and embeddings (docs/convert.md):

    variables, moved = model_from_torch(model, into=variables, rename={"fc": "head"})

Batch norms alone: every `from_*` takes the state of a model and returns each batch norm in it under
its path, as `(Affine, RunningStats)`; every `to_*` turns such a dictionary into what the framework
loads, and with `into` checks names and shapes against the model that they are for:

    layers = from_torch(model)
    variables = to_linen(layers, rename=lambda path: path.replace(".", "/"), into=variables)

No framework is imported. States are dictionaries of arrays that NumPy can read; modules of PyTorch
and NNX, Keras models and Equinox models are asked for theirs by their own methods.

A state holds neither momentum nor epsilon: give those to the new layer. In the terms used here,

| state of | momentum | default epsilon | running variance | momentum of the next step |
|---|---|---|---|---|
| PyTorch | 1 - its momentum | 1e-5 | over **N - 1** | unchanged |
| Flax | its momentum | 1e-5 | over N | unchanged |
| Keras | its momentum | **1e-3** | over N | unchanged |
| Haiku | its decay rate | 1e-5 | over N | `debiased_momentum(counter, decay_rate)` |
| Equinox, "ema" | its momentum | 1e-5 | over N | unchanged |
| Equinox, "batch" | its momentum | 1e-5 | over N | `debiased_momentum(counter, momentum)` |

So a PyTorch layer of momentum 0.1 goes on exactly as before with
`update_running(stats, bessel_correction(batch_moments(x)), momentum=0.9)`. `batch_norm` divides by
N: from there on its running variance settles at (N - 1) / N of PyTorch's, where N counts
all that one feature sees of a batch, pixels included.
"""

from jbn.convert._equinox import from_equinox, to_equinox
from jbn.convert._frameworks import (
    from_keras,
    from_linen,
    from_nnx,
    from_torch,
    to_keras,
    to_linen,
    to_nnx,
    to_torch,
)
from jbn.convert._haiku import from_haiku, to_haiku
from jbn.convert._models import (
    model_from_haiku,
    model_from_keras,
    model_from_torch,
    model_to_haiku,
    model_to_keras,
    model_to_torch,
)
from jbn.convert._norms import Layers

__all__ = [
    "Layers",
    "from_equinox",
    "from_haiku",
    "from_keras",
    "from_linen",
    "from_nnx",
    "from_torch",
    "model_from_haiku",
    "model_from_keras",
    "model_from_torch",
    "model_to_haiku",
    "model_to_keras",
    "model_to_torch",
    "to_equinox",
    "to_haiku",
    "to_keras",
    "to_linen",
    "to_nnx",
    "to_torch",
]
