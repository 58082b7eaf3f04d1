"""Matching of two models' layers: by `rename`, by name, or by shape if one alone fits."""

from collections import Counter
from collections.abc import Mapping
from itertools import product

import numpy as np

from jbn.convert._layouts import Layer
from jbn.convert._norms import Rename, check_identity, rename_paths
from jbn.convert._state import State


def match(
    source: State,
    target: State,
    given: Mapping[str, list[Layer]],
    wanted: Mapping[str, list[Layer]],
    rename: Rename | None,
) -> dict[str, str]:
    """Returns the path in `target` of every layer of `source`; none may be left over."""
    at = {path.replace(target.format.separator, "/"): path for path in wanted}
    moved = {}
    for here, there in rename_paths(given, rename).items():
        if there in wanted:
            moved[here] = there
        elif here != there:
            raise ValueError(
                f"rename has {there!r} for {here!r}, and the layers of {target.format.framework} "
                f"are {list(wanted)}."
            )
        elif (same := here.replace(source.format.separator, "/")) in at:
            moved[here] = at[same]
    if twice := [path for path, count in Counter(moved.values()).items() if count > 1]:
        raise ValueError(f"more than one layer goes to {twice}: {moved}.")

    rest = [path for path in wanted if path not in moved.values()]
    fits = {
        here: [there for there in rest if _shapes_agree(given[here], wanted[there])]
        for here in given
        if here not in moved
    }
    claims = Counter(there for candidates in fits.values() for there in candidates)
    alone = {
        here: candidates[0]
        for here, candidates in fits.items()
        if len(candidates) == 1 and claims[candidates[0]] == 1
    }
    if len(alone) < max(len(fits), len(rest)):
        unknown = [f"{here!r} fits {fits[here] or 'none'}" for here in fits if here not in alone]
        more = [f"{len(unknown) - 4} others fit none or several"] if len(unknown) > 4 else []
        empty = [there for there in rest if there not in alone.values()]
        raise ValueError(
            f"{source.format.framework} to {target.format.framework}: "
            + "; ".join([*unknown[:4], *more, f"nothing comes to {empty}"])
            + ". A layer goes where its name is, or its shape if one alone fits. Say which is "
            "which with rename={...}, or leave layers alone with ignore=[...]."
        )
    moved |= alone
    return {here: moved[here] for here in given}


def complete(here: str, given: list[Layer], there: str, wanted: list[Layer]) -> Layer:
    """Returns the arrays that the layer `there` has, from those of the layer `here`."""
    for new, old in product(map(_with_affine_map, given), wanted):
        lost = new.keys() - old.keys()
        fits = old.keys() <= new.keys() and lost <= {"scale", "bias"}
        if fits and all(new[role].shape == old[role].shape for role in old):
            for role in lost:
                check_identity(f"layer {here!r}", role, new[role])
            return {role: new[role] for role in old}
    raise ValueError(
        f"layer {here!r} does not fit {there!r}: {_describe(given)}, there {_describe(wanted)}, in "
        "the layout of Flax. Say which is which with rename={...}, or leave both alone with "
        f"ignore={[here, there]}."
    )


def _with_affine_map(layer: Layer) -> Layer:
    """Returns a batch norm that has neither scale nor bias with those that change nothing."""
    if "mean" not in layer or {"scale", "bias"} & layer.keys():
        return layer
    ones = np.ones(layer["mean"].shape, np.float32)
    return layer | {"scale": ones, "bias": 0 * ones}


def _shapes(layer: Layer) -> dict[str, tuple[int, ...]]:
    return {role: array.shape for role, array in layer.items()}


def _shapes_agree(given: list[Layer], wanted: list[Layer]) -> bool:
    return any(_shapes(new) == _shapes(old) for new in given for old in wanted)


def _describe(layers: list[Layer]) -> str:
    return " or ".join(str(_shapes(layer)) for layer in layers)
