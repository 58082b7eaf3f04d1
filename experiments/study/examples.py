"""Examples to train, select and test on: checked, split, standardised and hashed."""

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.study.data import DataError

SPLITS = ("train", "validation", "test")


class Pair(NamedTuple):
    """Inputs `(N, ...)` and targets `(N,)` or `(N, outputs)`, as somebody has them."""

    x: Any
    y: Any


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[f"{split}_{part}" for split in SPLITS for part in "xy"] + ["largest"],
    meta_fields=["shape", "outputs", "by_seed"],
)
@dataclass(frozen=True)
class Examples:
    """Examples as programs get them, each input as one row of numbers.

    Bytes stay bytes until a batch is drawn: a quarter of the memory on the device.
    """

    train_x: Any
    """`(N, features)`, bytes or float32; so in every split."""
    train_y: Any
    """Labels `(N,)` as int32, counted from 0, or real targets `(N, outputs)` as float32."""
    validation_x: Any
    """Of no example where there is no such split."""
    validation_y: Any
    test_x: Any
    test_y: Any
    largest: float
    """The largest value that a byte has here; divided by it, inputs lie in [0, 1]."""
    shape: tuple[int, ...]
    """Of one example, as a network gets it."""
    outputs: int
    """Classes, or targets of an example."""
    by_seed: bool = False
    """Whether each seed divides all examples anew, into splits of the same sizes."""

    def split(self, name: str) -> tuple[Any, Any]:
        """Returns inputs and targets of "train", "validation" or "test"."""
        return getattr(self, f"{name}_x"), getattr(self, f"{name}_y")

    def of_seed(self, key: jax.Array) -> "Examples":
        """Returns the examples as the runs of one seed have them, divided by `key` if `by_seed`."""
        if not self.by_seed:
            return self
        whole = {p: jnp.concatenate([getattr(self, f"{s}_{p}") for s in SPLITS]) for p in "xy"}
        order = jax.random.permutation(key, whole["y"].shape[0])
        ends = np.cumsum([self.split(name)[1].shape[0] for name in SPLITS])[:-1]
        parts = zip(SPLITS, jnp.split(order, ends))
        arrays = {f"{s}_{p}": whole[p][rows] for s, rows in parts for p in "xy"}
        return dataclasses.replace(self, **arrays)

    @property
    def has_validation(self) -> bool:
        """Tells whether some examples are there to select by."""
        return self.validation_x.shape[0] > 0

    def sha256(self) -> str:
        """Returns a checksum of all numbers, shapes and types."""
        digest = hashlib.sha256()
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                digest.update(f"{field.name} {value.dtype} {value.shape}".encode())
                digest.update(np.ascontiguousarray(value).data)
            else:
                digest.update(f"{field.name} {value}".encode())
        return digest.hexdigest()


def prepare(
    splits: dict[str, Pair], *, classes: bool, standardize: bool = False, largest: float = 255.0
) -> Examples:
    """Checks what was loaded, counts its classes, and lays it out for programs.

    Args:
        splits: "train" and "test", and "validation" if there is one.
        classes: Whether targets are labels; otherwise they are real numbers.
        standardize: Whether each number of an input gets mean 0 and standard deviation 1 over the
            training split.
        largest: The largest value that a byte has.

    Raises:
        DataError: naming the split, what came and what is needed.
    """
    xs = {name: _check_inputs(name, pair.x) for name, pair in splits.items()}
    shape = xs["train"].shape[1:]
    for name, x in xs.items():
        if x.shape[1:] != shape or (x.dtype == np.uint8) != (xs["train"].dtype == np.uint8):
            raise DataError(
                f"{name} inputs: are {x.dtype}{list(x.shape)}, and the training split's are "
                f"{xs['train'].dtype}{list(xs['train'].shape)}: all need one type and shape."
            )
        if len(x) != len(splits[name].y):
            raise DataError(f"{name}: has {len(x)} inputs and {len(splits[name].y)} targets.")
    if standardize:
        xs = _standardized(xs)
    raw = {name: np.asarray(pair.y) for name, pair in splits.items()}
    ys, outputs = _labels(raw) if classes else _real_targets(raw)
    arrays = {}
    for name in SPLITS:
        x, y = xs.get(name, xs["train"][:0]), ys.get(name, ys["train"][:0])
        arrays |= {f"{name}_x": x.reshape(len(x), int(np.prod(shape))), f"{name}_y": y}
    return Examples(**arrays, largest=largest, shape=shape, outputs=outputs)


def split_up(pair: Pair, *, validation: float, test: float, seed: int) -> dict[str, Pair]:
    """Divides examples at random, the same for the same seed; what is 0 is left out.

    Raises:
        DataError: when a split would be empty.
    """
    x, y = np.asarray(pair.x), np.asarray(pair.y)
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise DataError(
            f"inputs {list(x.shape)} and targets {list(y.shape)}: need as many of both."
        )
    order = np.random.default_rng(seed).permutation(len(x))
    sizes = {"validation": round(validation * len(x)), "test": round(test * len(x))}
    fractions = {"validation": validation, "test": test}
    sizes["train"] = len(x) - sum(sizes.values())
    for name, size in sizes.items():
        if size < 1 and fractions.get(name, 1):
            raise DataError(f"{len(x)} examples leave none for the {name} split.")
    splits, start = {}, 0
    for name, size in sizes.items():
        rows = np.sort(order[start : start + size])
        if size:
            splits[name] = Pair(x[rows], y[rows])
        start += size
    return {name: splits[name] for name in SPLITS if name in splits}


def _check_inputs(name: str, x: Any) -> np.ndarray:
    x = np.asarray(x)
    if x.dtype == np.bool_:
        x = x.astype(np.uint8)
    if not (np.issubdtype(x.dtype, np.integer) or np.issubdtype(x.dtype, np.floating)):
        raise DataError(f"{name} inputs: are of type {x.dtype}, need to be numbers.")
    if x.ndim < 2 or x.size == 0:
        raise DataError(
            f"{name} inputs: have shape {list(x.shape)}, need examples first and then their "
            "features, [N, ...]."
        )
    if x.dtype == np.uint8:
        return x
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        row, *where = np.argwhere(~np.isfinite(x))[0].tolist()
        raise DataError(f"{name} inputs: example {row} is not finite in float32, at {where}.")
    return x


def _standardized(xs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    train = xs["train"].astype(np.float64)
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    # A feature that does not vary, but for rounding, stays 0.
    constant = deviation <= 1e-6 * np.abs(mean)
    deviation = np.where(constant, 1, deviation)
    return {
        name: np.where(constant, 0, (x - mean) / deviation).astype(np.float32)
        for name, x in xs.items()
    }


def _labels(ys: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int]:
    """Numbers the labels from 0, in their order."""
    for name, y in ys.items():
        if y.ndim != 1:
            raise DataError(f"{name} labels: have shape {list(y.shape)}, need [N], one each.")
        if y.dtype.kind not in "biuOUS":
            raise DataError(
                f"{name} labels: are of type {y.dtype}, need whole numbers or text. For real "
                "targets say task=Regression()."
            )
        if y.dtype.kind in "iu" and y.min() < 0:
            raise DataError(f"{name} labels: one is {y.min()}, need whole numbers from 0, or text.")
    texts = {name: y.astype(str) if y.dtype.kind in "OUS" else y for name, y in ys.items()}
    classes, counts = np.unique(texts["train"], return_counts=True)
    if len(classes) < 2:
        raise DataError(f"training labels: are all {classes[0]}, need at least two classes.")
    if len(classes) > counts.sum() / 2:
        raise DataError(
            f"training labels: {len(classes)} classes in {counts.sum()} examples, need at least "
            "two examples for a class. For real targets say task=Regression()."
        )
    for name, y in texts.items():
        unknown = y[~np.isin(y, classes)]
        if unknown.size:
            raise DataError(f"{name} labels: {unknown[0]} is in no example of the training split.")
    numbered = {name: np.searchsorted(classes, y).astype(np.int32) for name, y in texts.items()}
    return numbered, len(classes)


def _real_targets(ys: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int]:
    targets = {}
    for name, y in ys.items():
        if y.dtype.kind not in "biuf" or y.ndim not in (1, 2):
            raise DataError(
                f"{name} targets: are {y.dtype}{list(y.shape)}, need real numbers, [N] or "
                "[N, outputs]."
            )
        with np.errstate(over="ignore"):
            y = y.astype(np.float32).reshape(len(y), -1)
        if not np.isfinite(y).all():
            row = np.argwhere(~np.isfinite(y))[0][0]
            raise DataError(f"{name} targets: that of example {row} is not finite in float32.")
        if name != "train" and np.ptp(y, axis=0).max() == 0:
            raise DataError(f"{name} targets: are all the same, so that nothing can be explained.")
        targets[name] = y
    widths = {y.shape[1] for y in targets.values()}
    if len(widths) > 1:
        raise DataError(f"targets: have {sorted(widths)} numbers each, need as many in all splits.")
    return targets, widths.pop()
