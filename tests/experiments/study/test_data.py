import gzip
import hashlib
import struct

import numpy as np
import pytest

from experiments.study import data
from experiments.study.data import DataError, read_idx

ARRAYS = {
    "train-images-idx3-ubyte": np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3),
    "train-labels-idx1-ubyte": np.array([3, 1], np.uint8),
    "t10k-images-idx3-ubyte": np.full((1, 3, 3), 255, np.uint8),
    "t10k-labels-idx1-ubyte": np.array([9], np.uint8),
}


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    header = bytes((0, 0, kind, array.ndim))
    return header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with four small IDX files, half of them gzipped, taken for MNIST's."""
    known = {}
    for i, (name, array) in enumerate(ARRAYS.items()):
        content = idx(array)
        known[name] = data._Sha256(hashlib.sha256(content).hexdigest(), packed="")
        if i % 2:
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(data, "_MNIST", known)
    return tmp_path


def check(loaded: data.Data) -> None:
    np.testing.assert_array_equal(loaded.train_images, np.arange(18).reshape(2, 9))
    np.testing.assert_array_equal(loaded.train_labels, [3, 1])
    np.testing.assert_array_equal(loaded.test_images, np.full((1, 9), 255))
    np.testing.assert_array_equal(loaded.test_labels, [9])


def test_digits_are_split_once_and_evenly():
    digits = data.load("digits")
    assert digits.train_images.shape == (1437, 64)
    assert digits.test_images.shape == (360, 64)
    assert digits.train_images.dtype == np.uint8
    assert digits.train_images.max() == digits.brightest == 16
    counts = np.bincount(digits.test_labels)
    assert counts.min() >= 34
    assert counts.max() <= 38
    again = data.load("digits")
    np.testing.assert_array_equal(digits.test_images, again.test_images)
    both = np.concatenate([digits.train_images, digits.test_images])
    assert len(np.unique(both, axis=0)) == 1797  # no image lost, none in both


def test_mnist_from_a_folder(folder):
    check(data.load("mnist", folder))


def test_mnist_from_the_environment(folder, monkeypatch):
    monkeypatch.setenv("JBN_DATA_DIR", str(folder))
    check(data.load("mnist"))


def test_binary_mnist_is_black_or_white(folder):
    grey = data.load("mnist", folder)._replace(train_images=np.array([[0, 127, 128, 255]]))
    np.testing.assert_array_equal(data.binary(grey).train_images, [[0, 0, 1, 1]])
    binary = data.load("binary-mnist", folder)
    np.testing.assert_array_equal(binary.test_images, np.ones((1, 9)))
    assert (binary.test_images.dtype, binary.brightest) == (np.uint8, 1)


def test_a_missing_file_is_named_with_its_place(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="has neither t10k-labels-idx1-ubyte nor") as error:
        data.load("mnist", folder)
    assert str(folder) in str(error.value)


def test_a_file_with_one_bit_flipped_is_named(folder):
    path = folder / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: is not MNIST's \(SHA-256"):
        data.load("mnist", folder)


def test_offline_says_where_to_put_what(monkeypatch, tmp_path):
    def no_network(*_, **__):
        raise OSError("no route to host")

    monkeypatch.delenv("JBN_DATA_DIR", raising=False)
    monkeypatch.setattr(data.pooch, "retrieve", no_network)
    monkeypatch.setattr(data.pooch, "os_cache", lambda _: tmp_path)
    with pytest.raises(DataError) as error:
        data.load("mnist")
    message = str(error.value)
    for needed in ("no route to host", str(tmp_path / "mnist"), "--data-dir", "JBN_DATA_DIR"):
        assert needed in message
    for name in ARRAYS:
        assert name in message


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is not an IDX file"),
        (b"\x00\x00", "is not an IDX file"),
        (b"<!DOCTYPE html>", "is not an IDX file"),
        (idx(ARRAYS["train-labels-idx1-ubyte"], kind=0x0D), "is not an IDX file of bytes"),
        (idx(ARRAYS["train-images-idx3-ubyte"])[:9], "ends inside its header"),
        (idx(ARRAYS["train-images-idx3-ubyte"])[:-1], r"has 17 bytes .* 2 x 3 x 3 = 18"),
        (idx(ARRAYS["train-images-idx3-ubyte"]) + b"!", r"has 19 bytes .* 2 x 3 x 3 = 18"),
    ],
    ids=["empty", "stub", "web page", "floats", "header cut", "cut short", "too long"],
)
def test_what_is_not_a_whole_idx_file_is_named(tmp_path, content, match, pack):
    path = tmp_path / ("images" if pack is bytes else "images.gz")
    path.write_bytes(pack(content))
    with pytest.raises(DataError, match=match) as error:
        read_idx(path)
    assert str(error.value).startswith(str(path))


def test_a_gzip_file_cut_short(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx(ARRAYS["train-images-idx3-ubyte"]))[:-4])
    with pytest.raises(DataError, match=r"images\.gz: cannot be read"):
        read_idx(path)


def other_names(folder):
    """As 7-Zip names what it unpacks."""
    for path in [*folder.iterdir()]:
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))


def exchanged_suffixes(folder):
    """Unpacked under the packed name, and packed under the other."""
    for path in [*folder.iterdir()]:
        is_packed = path.suffix == ".gz"
        path.rename(path.with_suffix("") if is_packed else path.with_name(f"{path.name}.gz"))


def torchvisions(folder):
    (folder / "MNIST" / "raw").mkdir(parents=True)
    for path in [*folder.glob("*ubyte*")]:
        path.rename(folder / "MNIST" / "raw" / path.name)


def kaggles(folder):
    for path in [*folder.iterdir()]:
        content = path.read_bytes()
        path.unlink()
        path.mkdir()
        (path / path.name).write_bytes(content)


def shuffled(folder):
    """Under each other's names."""
    paths = sorted(folder.iterdir())
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1]):
        path.write_bytes(content)


@pytest.mark.parametrize("name", [other_names, exchanged_suffixes, torchvisions, kaggles, shuffled])
def test_mnist_is_known_by_its_content(folder, name):
    name(folder)
    (folder / "notes.txt").write_text("mine")
    check(data.load("mnist", folder))


def test_what_is_too_long_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "LARGEST_FILE", 1000)
    for name, pack in (("bomb.gz", gzip.compress), ("long", bytes)):
        (tmp_path / name).write_bytes(pack(idx(np.zeros(10**6, np.uint8))))
        with pytest.raises(DataError, match=f"{name}: is longer than any of MNIST's files"):
            read_idx(tmp_path / name)


def test_a_header_of_a_hundred_dimensions(tmp_path):
    (tmp_path / "odd").write_bytes(bytes((0, 0, 8, 100)) + bytes(400))
    with pytest.raises(DataError, match="is not an IDX file"):
        read_idx(tmp_path / "odd")
