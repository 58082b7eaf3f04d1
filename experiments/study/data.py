"""The images that studies train on: real, small, and checked before they are believed."""

import gzip
import hashlib
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pooch

_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"


class _Sha256(NamedTuple):
    unpacked: str
    packed: str
    """As the mirror packs it; others gzip differently."""


_MNIST = {
    "train-images-idx3-ubyte": _Sha256(
        unpacked="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        packed="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "train-labels-idx1-ubyte": _Sha256(
        unpacked="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        packed="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "t10k-images-idx3-ubyte": _Sha256(
        unpacked="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        packed="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "t10k-labels-idx1-ubyte": _Sha256(
        unpacked="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        packed="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
}

_UNSIGNED_BYTE = 0x08
_IDX, _GZIP = bytes((0, 0, _UNSIGNED_BYTE)), bytes((0x1F, 0x8B))
LARGEST_FILE = 16 + 60_000 * 28 * 28  # MNIST's training images
_MOST_DIMENSIONS = 8


class DataError(RuntimeError):
    """Data that is missing or is not what it should be; the message is one line."""


class Data(NamedTuple):
    """Labelled images, split in two: images as bytes `(N, pixels)`, labels `(N,)`.

    Bytes stay bytes until a batch is drawn: a quarter of the memory on the device.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    brightest: float
    """The largest value a pixel can have; divided by it, pixels lie in [0, 1]."""


def load(name: str, data_dir: Path | None = None) -> Data:
    """Loads the data set `name`: "digits", "mnist", or "binary-mnist" with pixels black or white.

    Args:
        name: As in `Study.data`.
        data_dir: Where MNIST's four files lie, known by their content: under any name, gzipped or
            not, there or in a folder in it. Without it the environment variable JBN_DATA_DIR is
            asked, and without that they are downloaded once.

    Raises:
        DataError: when a file is missing, damaged or not MNIST's, naming it.
    """
    if name == "digits":
        return _digits()
    mnist = _mnist(data_dir)
    return binary(mnist) if name == "binary-mnist" else mnist


def binary(data: Data) -> Data:
    """Makes pixels of `data` 1 where they are brighter than half, else 0."""

    def split(images: np.ndarray) -> np.ndarray:
        return (images > data.brightest / 2).astype(np.uint8)

    train, test = split(data.train_images), split(data.test_images)
    return data._replace(train_images=train, test_images=test, brightest=1.0)


def _digits() -> Data:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits: Any = load_digits()
    # One split for every study: results on different test sets could not be compared.
    split: list[Any] = train_test_split(
        digits.data.astype(np.uint8),
        digits.target.astype(np.int32),
        test_size=360,
        stratify=digits.target,
        random_state=0,
    )
    train_images, test_images, train_labels, test_labels = split
    return Data(train_images, train_labels, test_images, test_labels, brightest=16.0)


def _mnist(data_dir: Path | None) -> Data:
    if data_dir is None and "JBN_DATA_DIR" in os.environ:
        data_dir = Path(os.environ["JBN_DATA_DIR"])
    train_x, train_y, test_x, test_y = (
        _find(data_dir, name) if data_dir else read_idx(_download(name), _MNIST[name].unpacked)
        for name in _MNIST
    )
    return Data(
        train_x.reshape(len(train_x), -1),
        train_y.astype(np.int32),
        test_x.reshape(len(test_x), -1),
        test_y.astype(np.int32),
        brightest=255.0,
    )


def _find(folder: Path, name: str) -> np.ndarray:
    """Reads the file that has the content of MNIST's `name`, whatever it is called."""
    named, complaint = [folder / name, folder / f"{name}.gz"], None
    others = (path for where in ("*", "MNIST/raw/*", "*/*") for path in sorted(folder.glob(where)))
    for path in dict.fromkeys([*filter(Path.is_file, named), *filter(_may_be_idx, others)]):
        try:
            return read_idx(path, _MNIST[name].unpacked)
        except DataError as error:
            complaint = complaint or (error if path in named else None)
    raise complaint or DataError(
        f"{folder}: has neither {name} nor {name}.gz, nor another file of that content. MNIST's "
        f"four files ({', '.join(_MNIST)}), gzipped or not, belong there."
    )


def _may_be_idx(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(3).startswith((_IDX, _GZIP))
    except OSError:
        return False


def _download(name: str) -> Path:
    cache = pooch.os_cache("jbn") / "mnist"
    packed = f"{name}.gz"
    try:
        path = pooch.retrieve(
            f"{_MIRROR}{packed}", f"sha256:{_MNIST[name].packed}", fname=packed, path=cache
        )
    except (OSError, ValueError) as error:  # no network; another checksum
        raise DataError(
            f"MNIST's {packed} could not be downloaded from {_MIRROR} ({_first_line(error)}). "
            f"Put the four files ({', '.join(_MNIST)}) in {cache}, or in a folder of your own "
            "and name it with --data-dir or JBN_DATA_DIR."
        ) from error
    return Path(path)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_idx(path: Path, sha256: str | None = None) -> np.ndarray:
    """Returns the array of bytes in an IDX file, gzipped or not.

    IDX: two zero bytes, the type of the elements, the number of dimensions, each dimension as a
    big-endian 32-bit integer, then the elements.

    Raises:
        DataError: when the file is cut short, too long (LARGEST_FILE unpacked), damaged, of another
            type, or its unpacked content has another checksum than `sha256`.
    """
    content = _unpacked(path)
    if len(content) < 4 or not content.startswith(_IDX) or content[3] > _MOST_DIMENSIONS:
        raise DataError(f"{path}: is not an IDX file of bytes (it begins {content[:4].hex(' ')}).")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise DataError(f"{path}: ends inside its header, after {len(content)} bytes.")
    shape = struct.unpack(f">{content[3]}I", content[4:header])
    if len(content) != header + math.prod(shape):
        raise DataError(
            f"{path}: has {len(content) - header} bytes after its header, which promises "
            f"{' x '.join(map(str, shape))} = {math.prod(shape)}. Fetch it again."
        )
    if sha256 is not None and (checksum := hashlib.sha256(content).hexdigest()) != sha256:
        raise DataError(
            f"{path}: is not MNIST's (SHA-256 of the unpacked file {checksum[:12]}.., should be "
            f"{sha256[:12]}..). Fetch it again."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _unpacked(path: Path) -> bytes:
    """Reads a file whose content, not its name, says whether it is gzipped; no more than needed."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
            if content.startswith(_GZIP):
                file.seek(0)
                content = gzip.GzipFile(fileobj=file).read(LARGEST_FILE + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read ({_first_line(error)}). Fetch it again."
        ) from error
    if len(content) > LARGEST_FILE:
        raise DataError(f"{path}: is longer than any of MNIST's files, {LARGEST_FILE} bytes.")
    return content
