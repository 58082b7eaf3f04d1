"""Data of one's own: what is read, how it is split, and what is refused in one line."""

import jax
import numpy as np
import pandas as pd
import pytest

from experiments.study import Arrays, Csv, Digits, Mnist, Npz
from experiments.study.data import DataError
from experiments.study.examples import SPLITS

RNG = np.random.default_rng(0)
X, Y = RNG.normal(5, 3, (50, 2, 3)), np.arange(50) % 3
FLAT = X.reshape(50, 6)


def rows(examples, split):
    x, y = examples.split(split)
    return {(*map(float, row), int(label)) for row, label in zip(x, y)}


def test_splits_are_disjoint_whole_and_of_their_seed():
    examples = Arrays(X, Y, test=0.2, validation=0.1, seed=3).load()
    sizes = [len(examples.split(name)[0]) for name in ("train", "validation", "test")]
    assert sizes == [35, 5, 10]
    all_rows = {(*map(float, row), label) for row, label in zip(FLAT.astype(np.float32), Y)}
    splits = [rows(examples, name) for name in ("train", "validation", "test")]
    assert set.union(*splits) == all_rows
    assert sum(map(len, splits)) == 50
    assert (examples.shape, examples.outputs) == ((2, 3), 3)
    assert Arrays(X, Y, test=0.2, validation=0.1, seed=3).load().sha256() == examples.sha256()
    assert Arrays(X, Y, test=0.2, validation=0.1, seed=4).load().sha256() != examples.sha256()
    changed = X.copy()
    changed[17, 0, 0] += 1
    assert Arrays(changed, Y, test=0.2, validation=0.1, seed=3).load().sha256() != examples.sha256()


def test_standardised_with_the_training_splits_numbers():
    examples = Arrays(X, Y, standardize=True, validation=0.1).load()
    np.testing.assert_allclose(examples.train_x.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(examples.train_x.std(0), 1, rtol=1e-5)
    plain = Arrays(X, Y, validation=0.1).load()
    mean, std = plain.train_x.mean(0), plain.train_x.std(0)
    np.testing.assert_allclose(examples.test_x, (plain.test_x - mean) / std, rtol=1e-3, atol=1e-4)
    constant = Arrays(np.full((50, 1), 0.1), Y, standardize=True).load()
    assert not constant.train_x.any()


def test_bytes_stay_bytes():
    examples = Arrays(RNG.integers(0, 256, (50, 4, 4), np.uint8), Y).load()
    assert (examples.train_x.dtype, examples.largest) == (np.uint8, 255)


def test_real_targets_have_an_output_each():
    examples = Arrays(X, FLAT[:, :2]).load(classes=False)
    assert (examples.outputs, examples.train_y.shape) == (2, (40, 2))
    assert Arrays(X, FLAT[:, 0]).load(classes=False).train_y.shape == (40, 1)


def test_labels_are_numbered_in_their_order():
    names = np.array(["b", "c", "a"])[Y]
    examples = Arrays(X, names, test=(X[:2], ["a", "c"])).load()
    assert examples.test_y.tolist() == [0, 2]
    assert Arrays(X, Y + 1, test=(X[:2], [1, 3])).load().test_y.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("data", "sizes"),
    [
        (Digits(), [1150, 287, 360]),
        (Digits(validation=0.1), [1293, 144, 360]),
        (Digits(validation=0), [1437, 0, 360]),
    ],
)
def test_a_part_of_the_digits_is_kept_to_select_by(data, sizes):
    examples = data.load()
    assert [len(examples.split(name)[0]) for name in SPLITS] == sizes
    assert examples.shape == (8, 8, 1)
    np.testing.assert_array_equal(examples.test_x, Digits().load().test_x)


def test_ten_thousand_images_of_mnist_select():
    assert round(Mnist().validation * 60_000) == 10_000


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    frame = pd.DataFrame(FLAT, columns=list("abcdef")).assign(label=np.array(["x", "y", "z"])[Y])
    frame.to_csv(path, index=False)
    return path, frame


@pytest.mark.parametrize("validation", [0.0, 0.25])
def test_each_seed_may_divide_the_digits_anew(validation):
    shared = Digits(validation).load()
    own = Digits(validation, split_by_seed=True).load()
    one, other = (own.of_seed(jax.random.key(seed)) for seed in (0, 1))
    assert not np.array_equal(one.test_x, other.test_x)
    for name in SPLITS:
        assert one.split(name)[0].shape == shared.split(name)[0].shape
    # Inputs stay with their targets, and each example is in one split.
    rows = [np.concatenate([d.split(n)[0] for n in SPLITS]) for d in (own, one)]
    labels = [np.concatenate([d.split(n)[1] for n in SPLITS]) for d in (own, one)]
    found = [sorted(zip(map(bytes, x), y.tolist())) for x, y in zip(rows, labels)]
    assert found[0] == found[1]
    assert shared.of_seed(jax.random.key(0)) is shared


def test_a_table(table):
    path, _ = table
    examples = Csv(path, "label").load()
    assert (examples.shape, examples.outputs, len(examples.train_x)) == ((6,), 3, 40)
    assert Csv(path, "label", features=("a", "c")).load().shape == (2,)
    assert Csv(path, "a", features=("b", "c")).load(classes=False).outputs == 1


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        (lambda t: t, {"target": "lable"}, "no column 'lable', it has 'a', 'b',"),
        (lambda t: t.assign(b=["k"] * 50), {}, "column 'b' holds 'k' in row 1, needs numbers"),
        (lambda t: t.assign(b=["1"] * 20 + ["1,5"] * 30), {}, "column 'b' holds '1,5' in row 21,"),
        (lambda t: t.assign(b=[10**30] * 50), {}, f"column 'b' holds {10**30} in row 1, needs"),
        (lambda t: t.assign(b=[1.0] * 20 + [None] * 30), {}, "column 'b' has no value in row 21"),
        (lambda t: t.assign(label="x"), {}, "training labels: are all x, need at least two"),
    ],
)
def test_a_table_that_cannot_be_used(table, change, options, says):
    path, frame = table
    change(frame).to_csv(path, index=False)
    with pytest.raises(DataError) as refused:
        Csv(path, **{"target": "label", **options}).load()
    assert str(refused.value).startswith(f"{path}: {says}")
    assert "\n" not in str(refused.value)


def test_arrays_in_a_file(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=X, y=Y, x_test=X[:7], y_test=Y[:7])
    examples = Npz(path).load()
    assert [len(examples.split(s)[0]) for s in ("train", "test")] == [50, 7]
    np.savez(path, x=X, y=Y, x_test=X[:7])
    with pytest.raises(DataError, match="has 'x_test' alone, needs 'x_test', 'y_test'"):
        Npz(path).load()
    with pytest.raises(DataError, match="has no array 'inputs', it has 'x', 'y', 'x_test'"):
        Npz(path, x="inputs").load()
    path.write_bytes(b"no file of numpy's")
    with pytest.raises(DataError, match=r"a\.npz: cannot be read as \.npz"):
        Npz(path).load()
    with pytest.raises(DataError, match=r"absent\.npz: cannot be read as \.npz \(No such file"):
        Npz(tmp_path / "absent.npz").load()


def broken(row, value):
    x = X.copy()
    x[row, 1, 2] = value
    return x


@pytest.mark.parametrize(
    ("x", "y", "classes", "says"),
    [
        (X[:, 0, 0], Y, True, "train inputs: have shape [40], need examples first"),
        (X.astype(str), Y, True, "train inputs: are of type"),
        (broken(4, np.nan), Y, True, "train inputs: example"),
        (broken(4, 1e39), Y, True, "train inputs: example"),
        (X, Y[:40], True, "inputs [50, 2, 3] and targets [40]: need as many of both"),
        (X, Y + 0.5, True, "train labels: are of type float64, need whole numbers or text"),
        (X, Y - 1, True, "labels: one is -1, need whole numbers from 0"),
        (X, FLAT, True, "train labels: have shape [40, 6], need [N]"),
        (X, np.arange(50), True, "training labels: 40 classes in 40 examples"),
        (X, Y.astype(str), False, "train targets: are <U"),
        (X, np.where(Y == 1, np.inf, 1.0), False, "train targets: that of example"),
        (X, np.ones(50), False, "test targets: are all the same"),
        (X[:1], Y[:1], True, "1 examples leave none for the test split"),
    ],
)
def test_arrays_that_cannot_be_used(x, y, classes, says):
    with pytest.raises(DataError) as refused:
        Arrays(x, y, seed=1).load(classes=classes)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_splits_of_other_kinds_are_refused():
    with pytest.raises(DataError, match=r"^test inputs: are float32\[5, 6\], and the training"):
        Arrays(X, Y, test=(FLAT[:5], Y[:5])).load()
    with pytest.raises(DataError, match="^test labels: 7 is in no example of the training split"):
        Arrays(X, Y, test=(X[:2], [0, 7])).load()
