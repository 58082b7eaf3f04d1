"""Data of a study: digits, MNIST, or arrays, an .npz or a .csv of one's own."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from experiments.study import data
from experiments.study.data import DataError
from experiments.study.examples import Examples, Pair, prepare, split_up
from experiments.study.values import (
    ConfigError,
    check,
    check_flags,
    fraction,
    is_text,
    tuple_of,
    whole,
)


class Data(Protocol):
    """Where a study's examples come from."""

    def load(self, data_dir: Path | None, *, classes: bool) -> Examples:
        """Loads, checks and splits the examples.

        Args:
            data_dir: Where MNIST's files lie.
            classes: Whether targets are labels; otherwise they are real numbers.

        Raises:
            DataError: when they cannot be had or used.
        """
        ...


@dataclass(frozen=True)
class Digits:
    """scikit-learn's 8x8 digits, `(8, 8, 1)` bytes: 1,150 to train, 287 to select, 360 to test on.

    Attributes:
      validation: fraction of the 1,437 images that are no test images, kept to select by; with 0
        all train, and what is selected is selected on the test set.
      standardize: whether each pixel gets mean 0 and standard deviation 1.
      seed: of the validation split.
      split_by_seed: whether each seed of the study draws its own images to train, select and test
        on. Then the spread over seeds holds the sampling error of 360 test images, which more seeds
        cannot lessen where all share them.
    """

    validation: float = 0.2
    standardize: bool = False
    seed: int = 0
    split_by_seed: bool = False

    def __post_init__(self) -> None:
        _check_split(self, "validation")
        check_flags(self, "split_by_seed")
        if self.split_by_seed and self.standardize:
            raise ConfigError(
                "split_by_seed and standardize cannot be had together: each seed has "
                "another training split."
            )

    def load(self, data_dir: Path | None = None, *, classes: bool = True) -> Examples:
        """Loads the images."""
        examples = _images(self, data.load("digits"), classes)
        return dataclasses.replace(examples, by_seed=self.split_by_seed)


@dataclass(frozen=True)
class Mnist:
    """MNIST, `(28, 28, 1)` bytes: 50,000 to train, 10,000 to select, 10,000 to test on.

    Attributes:
      binary: whether pixels are black or white.
      validation: fraction of the 60,000 images that are no test images; as in Digits.
      standardize, seed: as in Digits.
    """

    binary: bool = False
    validation: float = 1 / 6
    standardize: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_flags(self, "binary")
        _check_split(self, "validation")

    def load(self, data_dir: Path | None = None, *, classes: bool = True) -> Examples:
        """Loads the images from `data_dir`, JBN_DATA_DIR, or the network."""
        images = data.load("binary-mnist" if self.binary else "mnist", data_dir)
        return _images(self, images, classes)


@dataclass(frozen=True, eq=False)
class Arrays:
    """Examples in arrays: inputs `(N, ...)`, floats or bytes, and targets `(N,)` or `(N, outputs)`.

    Attributes:
      x, y: inputs and targets; labels are whole numbers from 0 or text.
      test: fraction to test on, or the pair (x, y) of those examples.
      validation: fraction to select by, or the pair.
      seed: of the random split.
      standardize: whether each number of an input gets mean 0 and standard deviation 1 over the
        training split. Otherwise bytes are divided by 255, and floats taken as they are.
    """

    x: Any = field(repr=False)
    y: Any = field(repr=False)
    test: Any = 0.2
    validation: Any = 0.0
    seed: int = 0
    standardize: bool = False

    def __post_init__(self) -> None:
        _check_split(self, *(f for f in ("test", "validation") if not _is_pair(getattr(self, f))))

    def load(self, data_dir: Path | None = None, *, classes: bool = True) -> Examples:
        """Splits the arrays."""
        given = {
            name: Pair(*pair)
            for name in ("validation", "test")
            if _is_pair(pair := getattr(self, name))
        }
        fractions = {name: 0.0 if name in given else getattr(self, name) for name in _FRACTIONS}
        splits = split_up(Pair(self.x, self.y), **fractions, seed=self.seed)
        return prepare(splits | given, classes=classes, standardize=self.standardize)


@dataclass(frozen=True)
class Npz:
    """Arrays in a file of NumPy's, inputs as `x` and targets as `y`.

    Where it has `x_test` and `y_test`, or `x_validation` and `y_validation`, these are the splits.

    Attributes:
      path: the file; relative to where the command is given.
      x, y: names of the arrays.
      test, validation, seed, standardize: as in Arrays, for splits that the file has not.
    """

    path: str | Path
    x: str = "x"
    y: str = "y"
    test: float = 0.2
    validation: float = 0.0
    seed: int = 0
    standardize: bool = False

    def __post_init__(self) -> None:
        _check_path(self)
        for name in ("x", "y"):
            check(self, name, is_text, "the name of an array")
        _check_split(self, "test", "validation")

    def load(self, data_dir: Path | None = None, *, classes: bool = True) -> Examples:
        """Reads the file."""
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{self.path}: cannot be read as .npz ({_reason(error)}).") from error
        for name in (self.x, self.y):
            if name not in arrays:
                raise DataError(f"{self.path}: has no array {name!r}, it has {_listed(arrays)}.")
        given: dict[str, Any] = {}
        for split in _FRACTIONS:
            names = [f"{self.x}_{split}", f"{self.y}_{split}"]
            there = [name for name in names if name in arrays]
            if len(there) == 1:
                raise DataError(f"{self.path}: has {there[0]!r} alone, needs {_listed(names)}.")
            given[split] = tuple(map(arrays.get, names)) if there else getattr(self, split)
        pair = arrays[self.x], arrays[self.y]
        return _named(
            self.path, Arrays(*pair, **given, seed=self.seed, standardize=self.standardize), classes
        )


@dataclass(frozen=True)
class Csv:
    """A table with a header: a row for each example, a column for each feature and the target.

    Attributes:
      path: the file; relative to where the command is given.
      target: name of the target's column, whole numbers or text for labels, or real numbers.
      features: names of the columns to learn from; all others by default.
      test, validation, seed, standardize: as in Arrays.
    """

    path: str | Path
    target: str
    features: tuple[str, ...] | None = None
    test: float = 0.2
    validation: float = 0.0
    seed: int = 0
    standardize: bool = False

    def __post_init__(self) -> None:
        _check_path(self)
        check(self, "target", is_text, "the name of a column")
        check(
            self,
            "features",
            lambda names: names is None or _distinct_texts(names),
            "a tuple of names of columns, or None",
        )
        _check_split(self, "test", "validation")

    def load(self, data_dir: Path | None = None, *, classes: bool = True) -> Examples:
        """Reads the table."""
        import pandas as pd

        try:
            table = pd.read_csv(self.path)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path}: cannot be read as CSV ({_reason(error)}).") from error
        features = [*(self.features or (name for name in table.columns if name != self.target))]
        for name in (self.target, *features):
            if name not in table:
                raise DataError(f"{self.path}: no column {name!r}, it has {_listed(table.columns)}")
            empty = np.flatnonzero(table[name].isna())
            if empty.size:
                raise DataError(f"{self.path}: column {name!r} has no value in row {empty[0] + 1}.")
            if name != self.target and not pd.api.types.is_numeric_dtype(table[name]):
                numbers = pd.Series(pd.to_numeric(table[name], errors="coerce"))
                row = int(np.argmax(numbers.isna().to_numpy()))
                raise DataError(
                    f"{self.path}: column {name!r} holds {table[name].iloc[row]!r} in row "
                    f"{row + 1}, needs numbers. Leave it out with features=(...)."
                )
        x, y = table[features].to_numpy(np.float64), table[self.target].to_numpy()
        split = {"test": self.test, "validation": self.validation, "seed": self.seed}
        return _named(self.path, Arrays(x, y, **split, standardize=self.standardize), classes)


_FRACTIONS = ("validation", "test")


def _images(owner: Any, images: data.Data, classes: bool) -> Examples:
    side = math.isqrt(images.train_images.shape[1])
    train = Pair(images.train_images.reshape(-1, side, side, 1), images.train_labels)
    test = Pair(images.test_images.reshape(-1, side, side, 1), images.test_labels)
    splits = {"train": train}
    if owner.validation:
        splits = split_up(train, validation=owner.validation, test=0.0, seed=owner.seed)
    return prepare(
        splits | {"test": test},
        classes=classes,
        standardize=owner.standardize,
        largest=images.brightest,
    )


def _named(path: str | Path, arrays: Arrays, classes: bool) -> Examples:
    try:
        return arrays.load(classes=classes)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2


def _distinct_texts(names: Any) -> bool:
    return tuple_of(is_text)(names) and len(set(names)) == len(names)


def _check_path(owner: Any) -> None:
    check(owner, "path", lambda path: isinstance(path, Path) or is_text(path), "a file's path")


def _check_split(owner: Any, *fractions: str) -> None:
    for name in fractions:
        if name == "test":
            check(owner, name, lambda part: fraction(part) and 0 < part < 1, "above 0, below 1")
        else:
            check(owner, name, lambda part: fraction(part) and part < 1, "from 0 to below 1")
    if sum(getattr(owner, name) for name in fractions) >= 1:
        raise ConfigError("validation and test: need to leave some examples to train on.")
    check(owner, "seed", whole(0), "a whole number from 0")
    check_flags(owner, "standardize")


def _listed(names: Any) -> str:
    shown = [repr(str(name)) for name in names]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]


WORDS: dict[str, Data] = {
    "digits": Digits(),
    "mnist": Mnist(),
    "binary-mnist": Mnist(binary=True),
}
