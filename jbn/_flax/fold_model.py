"""Folding of a whole model: one norm after another, as long as the output stays the same."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr

from jbn._flax.fold_pairs import Linear, Norm, Trace
from jbn._fold import as_affine, fold, fold_forward
from jbn._numerics.values import check_number
from jbn._types import Affine, RunningStats

# Of a linear layer "kernel" and "bias", of a norm "mean", "var", "scale" and "bias": what it has.
Arrays = dict[str, jax.Array]


class FoldReport(NamedTuple):
    """The norms of a model that were folded, and those that were not.

    Attributes:
      folded: the linear layers that each folded norm went into, by paths.
      kept: why each other norm was not folded.
      difference: largest change of the model's output on the example, beside its largest value.
    """

    folded: dict[str, tuple[str, ...]]
    kept: dict[str, str]
    difference: float


class _NotFolded(Exception):
    """A reason why a norm is not folded."""


def fold_model(
    trace: Trace,
    jaxpr: Jaxpr,
    arrays: dict[str, Arrays],
    run: Callable[[dict[str, Arrays]], Any],
    tolerance: float | None,
) -> tuple[dict[str, Arrays], FoldReport]:
    """Returns the arrays of the layers, by path, after folding.

    Each norm goes into the layer before it, or else into those after it, if `run` then gives the
    same output within `tolerance`.
    """
    _check_trained(trace, arrays)
    run = jax.jit(run)
    expected, difference, folded, kept = run(arrays), 0.0, {}, {}
    if tolerance is None:
        tolerance = _tolerance(trace, arrays, expected)
    check_number("tolerance", tolerance, low=0.0, high=float("inf"))
    for norm, near in trace.neighbours(jaxpr).items():
        if obstacle := _obstacle(trace.layers[norm], arrays[norm]):
            kept[norm] = obstacle
            continue
        reasons = []
        for linears, forward in ((near.before, False), (near.after, True)):
            if not linears:
                continue
            try:
                if again := [path for path in (norm, *linears) if path in near.called_again]:
                    raise _NotFolded(f"{' and '.join(again)} is called more than once")
                changed = arrays | _merge(trace, arrays, norm, linears, forward)
                moved = _relative_difference(expected, run(changed))
                if not moved <= tolerance:
                    raise _NotFolded(
                        f"the output would change by {moved:.2g} of its size, more than the "
                        f"tolerance of {tolerance:.2g}. Does the kernel reach its layer as it is "
                        "stored (no WeightNorm)? If its type is too coarse, fold in float32, or "
                        "give a larger tolerance"
                    )
            except _NotFolded as reason:
                reasons.append(f"into {', '.join(linears)}: {reason}")
            else:
                arrays, difference, folded[norm] = changed, moved, linears
                break
        if norm not in folded:
            kept[norm] = "; ".join(reasons) or (
                "neither is its input the output of a Dense or Conv that only it reads, nor its "
                "output read by such layers alone"
            )
    return arrays, FoldReport(folded, kept, difference)


def _merge(
    trace: Trace, arrays: dict[str, Arrays], path: str, linears: tuple[str, ...], forward: bool
) -> dict[str, Arrays]:
    """Returns the new arrays of a norm and of the linear layers that it is merged into."""
    norm, own = trace.layers[path], arrays[path]
    assert isinstance(norm, Norm)
    shape = own["mean"].shape
    vectors = [own.get("scale", jnp.ones(shape)), own.get("bias", jnp.zeros(shape))]
    affine = as_affine(
        Affine(*(v.reshape(-1) for v in vectors)),
        RunningStats(own["mean"].reshape(-1), own["var"].reshape(-1)),
        epsilon=norm.epsilon,
    )
    merged = {}
    for name in linears:
        linear = trace.layers[name]
        assert isinstance(linear, Linear)
        if obstacle := _obstacle_of_linear(linear, arrays[name], affine, forward):
            raise _NotFolded(f"{name} {obstacle}")
        merged[name] = _merge_one(linear, arrays[name], affine, shape, forward)
    # With scale 1, bias 0 and variance 1 - epsilon a norm subtracts its mean, and nothing else.
    absorbed = forward or "bias" in merged[linears[0]]
    mean = jnp.zeros(shape) if absorbed else -affine.bias.reshape(shape)
    identity = {"mean": mean, "var": jnp.full(shape, 1 - norm.epsilon)}
    identity |= {"scale": jnp.ones(shape), "bias": jnp.zeros(shape)}
    merged[path] = {name: identity[name].astype(leaf.dtype) for name, leaf in own.items()}
    return merged


def _merge_one(
    linear: Linear, own: Arrays, affine: Affine, shape: tuple[int, ...], forward: bool
) -> Arrays:
    """Returns the new kernel of a linear layer, and the new bias if it has one."""
    kernel, bias = own["kernel"], own.get("bias")
    sides = tuple(kernel.shape[a] for a in (linear.inputs if forward else linear.outputs))
    if shape == sides[-len(shape) :]:
        affine = Affine(*(jnp.broadcast_to(v.reshape(shape), sides).reshape(-1) for v in affine))
    elif not (forward and len(shape) == len(sides) == 1 and shape[0] % sides[0] == 0):  # groups
        raise _NotFolded(f"statistics of shape {shape} do not fit a kernel of {kernel.shape}")
    flat = linear.flatten(kernel), None if bias is None else bias.reshape(-1)
    flat_kernel, flat_bias = (fold_forward if forward else fold)(*flat, affine)
    new = {"kernel": linear.restore(flat_kernel, kernel)}
    if bias is not None:
        new["bias"] = flat_bias.reshape(bias.shape)
    if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in new.values()):
        raise _NotFolded(
            f"the folded kernel or bias does not fit {kernel.dtype}: its largest number is too "
            "small"
        )
    return new


def _obstacle(norm: Norm | Linear, own: Arrays) -> str:
    """Tells why a norm cannot be merged into any layer; empty if it can."""
    assert isinstance(norm, Norm)
    if not norm.ends_in_features:
        return "its feature axis is not the last"
    if jnp.iscomplexobj(own["mean"]):
        return "its statistics are complex"
    if norm.epsilon >= 1:
        return f"with epsilon={norm.epsilon} no variance makes it the identity"
    return ""


def _obstacle_of_linear(linear: Linear, own: Arrays, affine: Affine, forward: bool) -> str:
    """Tells why a linear layer cannot take an affine map; empty if it can."""
    if linear.refused:
        return linear.refused
    if "kernel" not in own:
        return "has no kernel of its own"
    if forward and not linear.reads_last_axes:
        return "sums over other axes than the last"
    if forward and jnp.any(affine.bias):
        if linear.pads:
            return "pads with zeros, which the norm's shift would have to reach"
        if "bias" not in own:
            return "has no bias to take the norm's shift"
    return ""


def _check_trained(trace: Trace, arrays: dict[str, Arrays]) -> None:
    fresh = [
        path or "the layer itself"
        for path, own in arrays.items()
        if isinstance(trace.layers[path], Norm)
        and not jnp.any(own["mean"])
        and jnp.all(own["var"] == 1)
    ]
    if fresh:
        raise ValueError(
            f"never trained: the running mean is 0 and the variance 1 in {fresh}. Train them, load "
            "their statistics, or recalibrate."
        )


def _tolerance(trace: Trace, arrays: dict[str, Arrays], output: Any) -> float:
    """Returns 1e-4, or four units of rounding of the coarsest type in play."""
    types = trace.types | {leaf.dtype for leaf in jax.tree.leaves((arrays, output))}
    units = [float(jnp.finfo(t).eps) for t in types if jnp.issubdtype(t, jnp.inexact)]
    return max(1e-4, *(4 * unit for unit in units))


def _relative_difference(old: Any, new: Any) -> float:
    """Returns the largest |new - old| of any output beside the largest |old|."""
    pairs = [
        [np.asarray(leaf, np.complex128) for leaf in pair]
        for pair in zip(*map(jax.tree.leaves, jax.device_get((old, new))))
        if jnp.issubdtype(pair[0].dtype, jnp.inexact)
    ]
    size = max((np.abs(a).max(initial=0) for a, _ in pairs), default=0)
    worst = max((np.abs(a - b).max(initial=0) for a, b in pairs), default=0)
    return float(worst / size if size else worst)
