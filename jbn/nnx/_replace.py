"""Replacement of the batch norms of an NNX model, in place."""

from typing import Any

from flax import nnx

from jbn._variants import Standard
from jbn.nnx._batch_norm import BatchNorm, set_variant
from jbn.nnx._intercept import layers

_REPLACEABLE = {
    "variant", "momentum", "epsilon", "axis", "axis_name", "axis_index_groups", "dtype",
    "use_running_average", "promote_dtype",
}  # fmt: skip


def replace_norms(model: nnx.Module, **options: Any) -> list[str]:
    """Makes every batch norm in `model` one of this class; returns their paths.

    For models that one does not want to edit: a variant, a momentum or an axis name for all norms.
    Variables stay. A function that `nnx.jit` has compiled is compiled anew.

    Args:
      model: its norms change, those of `flax.nnx` too.
      **options: attributes of `BatchNorm` to set: `variant`, `momentum`, `epsilon`, `axis`,
        `axis_name`, `axis_index_groups`, `dtype`, `use_running_average`, `promote_dtype`.

    Raises:
      TypeError: for another attribute, or a subclass of `flax.nnx.BatchNorm` that is none of this
        class; then nothing has changed.

    >>> import jbn
    >>> model = nnx.Sequential(nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
    >>> print(replace_norms(model, variant=jbn.Ghost(4)), type(model.layers[0]) is BatchNorm)
    ['layers/0'] True
    """
    if unknown := sorted(options.keys() - _REPLACEABLE):
        raise TypeError(
            f"not to be replaced: {', '.join(unknown)}. These can be: "
            f"{', '.join(sorted(_REPLACEABLE))}."
        )
    norms = layers(model, lambda node: isinstance(node, nnx.BatchNorm))
    for norm in norms.values():
        if type(norm) is not nnx.BatchNorm and not isinstance(norm, BatchNorm):
            raise TypeError(f"{type(norm).__name__} is a batch norm of its own: not replaced.")
    stored = BatchNorm(1, rngs=nnx.Rngs(0), **options)  # lists become tuples
    for norm in norms.values():
        if not isinstance(norm, BatchNorm):
            norm.__class__, norm.variant = BatchNorm, Standard()
        for name in options:
            if name == "variant":
                set_variant(norm, options[name])
            else:
                setattr(norm, name, getattr(stored, name))
    return list(norms)
