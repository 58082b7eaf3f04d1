"""Pairs of a batch norm and the Dense or Conv that it alone reads, found by tracing the model.

Every linear layer's output and every norm's input is given a name while the model is traced. Where
one named value leads straight to the other, and to no other place, the two layers may merge.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Jaxpr, Literal, subjaxprs

from jbn._flax.moments import is_frozen
from jbn._fold import as_affine, fold
from jbn._numerics.layout import feature_axes
from jbn._types import Affine, RunningStats

_LINEAR, _NORM, _OTHER_NORM = "linear layer", "batch norm", "batch norm of another axis"


class FoldReport(NamedTuple):
    """What was folded.

    Attributes:
      folded: the linear layer that each folded norm went into, by paths.
      kept: why each other norm was not folded.
      difference: largest change of the model's output on the example, beside its largest value.
    """

    folded: dict[str, str]
    kept: dict[str, str]
    difference: float


def name_output(path: str, y: jax.Array) -> jax.Array:
    return checkpoint_name(y, f"{_LINEAR}: {path}")


def name_input(path: str, x: jax.Array, axis: int | Sequence[int]) -> jax.Array:
    last = feature_axes(x.ndim, axis) == (x.ndim - 1,)
    return checkpoint_name(x, f"{_NORM if last else _OTHER_NORM}: {path}")


def pairs(function: Callable[..., Any], *args: Any) -> tuple[dict[str, str], dict[str, str]]:
    """The linear layer that alone feeds each norm; for the other norms, why there is none."""
    found, why = {}, {}
    calls: Counter[str] = Counter()
    for jaxpr in _all_jaxprs(jax.make_jaxpr(function)(*args).jaxpr):
        used = [v for eqn in jaxpr.eqns for v in eqn.invars] + list(jaxpr.outvars)
        uses: Counter[Any] = Counter(v for v in used if not isinstance(v, Literal))
        outputs = {}
        for eqn in jaxpr.eqns:
            kind, _, path = _given_name(eqn).partition(": ")
            calls[path] += kind != ""
            if kind == _LINEAR:
                outputs[eqn.outvars[0]] = path
            elif kind == _OTHER_NORM:
                why[path] = "its feature axis is not the last"
            elif kind == _NORM:
                linear = outputs.get(eqn.invars[0])
                if linear is not None and uses[eqn.invars[0]] == 1:
                    found[path] = linear
                else:
                    why[path] = "its input is not the output of a Dense or Conv that only it reads"
    for norm, linear in found.items():
        if calls[norm] > 1 or calls[linear] > 1:
            why[norm] = f"it or {linear} is called more than once"
    return {norm: linear for norm, linear in found.items() if norm not in why}, why


def _given_name(eqn: Any) -> str:
    name = str(eqn.params.get("name", "")) if eqn.primitive.name == "name" else ""
    return name if name.startswith((_LINEAR, _NORM, _OTHER_NORM)) else ""


def _all_jaxprs(jaxpr: Jaxpr) -> Iterator[Jaxpr]:
    yield jaxpr
    for inner in subjaxprs(jaxpr):
        yield from _all_jaxprs(inner)


def check_inference(path: str, layer: Any, call: dict[str, Any]) -> None:
    if not is_frozen(layer, call):
        raise ValueError(
            f"{path or 'the layer itself'} normalises with the statistics of a batch, which "
            "nothing before it can do. Call the model as for inference, with train=False for "
            "example."
        )


def check_trained(stats: dict[str, RunningStats]) -> None:
    fresh = [
        path or "the layer itself"
        for path, (mean, var) in stats.items()
        if not jnp.any(mean) and jnp.all(var == 1)
    ]
    if fresh:
        raise ValueError(
            f"never trained: the running mean is 0 and the variance 1 in {fresh}. Train them, load "
            "their statistics, or recalibrate."
        )


def is_linear(layer: Any, kinds: tuple[type, ...]) -> bool:
    """Whether `layer` is of these classes, no subclass, with output features last in its kernel."""
    return type(layer) in kinds and not getattr(layer, "transpose_kernel", False)


def overflow(kernel: jax.Array, bias: jax.Array | None) -> str | None:
    """Why the numbers of a folded layer cannot take the place of its own."""
    leaves = [leaf for leaf in (kernel, bias) if leaf is not None]
    if all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves):
        return None
    return f"the folded kernel or bias does not fit {kernel.dtype}: its largest number is too small"


def obstacle(kernel: jax.Array, stats: RunningStats, epsilon: float) -> str | None:
    """Why a norm cannot go into the linear layer that it reads."""
    if stats.mean.ndim != 1 or kernel.shape[-1:] != stats.mean.shape:
        return f"statistics of shape {stats.mean.shape} do not fit a kernel of {kernel.shape}"
    if epsilon >= 1:
        return f"with epsilon={epsilon} no variance makes it the identity"
    return None


def fold_pair(
    kernel: jax.Array, bias: jax.Array | None, affine: Affine, stats: RunningStats, epsilon: float
) -> tuple[jax.Array, jax.Array | None, RunningStats]:
    """The linear layer's new kernel and bias, and statistics that make the norm do what is left.

    With scale 1, bias 0 and variance 1 - epsilon a norm subtracts its mean and does nothing else:
    the mean is 0, or minus the new bias where the linear layer has no place for one.
    """
    kernel, shift = fold(kernel, bias, as_affine(affine, stats, epsilon=epsilon))
    left = jnp.zeros_like(stats.mean) if bias is not None else -shift.astype(stats.mean.dtype)
    var = jnp.full_like(stats.var, 1 - epsilon)
    return kernel, None if bias is None else shift, RunningStats(left, var)


def relative_difference(old: Any, new: Any, tolerance: float | None) -> float:
    """Largest |new - old| of any output beside the largest |old|; an error above `tolerance`."""
    types = [leaf.dtype for leaf in jax.tree.leaves(old) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    if tolerance is None:
        tolerance = max([1e-4, *(4 * float(jnp.finfo(dtype).eps) for dtype in types)])
    pairs = [
        (a.astype(jnp.float32), b.astype(jnp.float32))
        for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new))
        if jnp.issubdtype(a.dtype, jnp.inexact)
    ]
    size = max((float(jnp.max(jnp.abs(a))) for a, _ in pairs), default=0.0)
    worst = max((float(jnp.max(jnp.abs(a - b))) for a, b in pairs), default=0.0)
    difference = worst / size if size else worst
    if not difference <= tolerance:
        raise ValueError(
            f"the folded model's output differs by {difference:.2g} of its size, more than the "
            f"tolerance of {tolerance:.2g}. Is the model in inference mode, and does each kernel "
            "reach its layer as it is stored (no WeightNorm)? If its type is too coarse, fold it "
            "in float32, or give a larger tolerance."
        )
    return difference
