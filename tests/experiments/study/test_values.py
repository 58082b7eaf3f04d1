"""Values of a config: what they refuse, and how they print."""

from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

from experiments.study import (
    MLP,
    SGD,
    Adam,
    AdamW,
    Csv,
    Digits,
    Ghost,
    Noisy,
    Npz,
    Objective,
    Standard,
)
from experiments.study.values import ConfigError, blame, show


@pytest.mark.parametrize(
    "widths", [[8, 6], (np.int64(8), 6), np.array([8, 6]), [np.int32(8), np.uint8(6)]], ids=repr
)
def test_numpys_numbers_and_lists_are_pythons(widths):
    mlp = MLP(widths, "relu", init_std=np.float64(0.5))
    assert mlp == MLP((8, 6), "relu", init_std=0.5)
    assert hash(mlp) == hash(MLP((8, 6), "relu", init_std=0.5))
    assert [type(each) for each in (*mlp.widths, mlp.init_std)] == [int, int, float]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MLP((), "relu"), r"widths=\(\): needs a tuple of whole numbers"),
        (lambda: MLP((True,), "relu"), r"widths=\(True,\): needs"),
        (lambda: MLP([64, "8"], "relu"), r'widths=\[64, "8"\]: needs'),
        (lambda: MLP(2**31, "relu"), r"widths=2147483648: needs"),
        (lambda: Adam(eps=1e-46), r"eps=1e-46: needs a positive number"),
        (lambda: AdamW(weight_decay=1e300), r"weight_decay=1e\+300: needs"),
        (lambda: MLP((3,), "swish"), r'activation="swish": needs one of '),
        (lambda: MLP((3,), ["relu"]), r'activation=\["relu"\]: needs'),
        (lambda: MLP((3,), "relu", init_std=0.0), r"init_std=0.0: needs a positive number"),
        (lambda: SGD(momentum=1.0), r"momentum=1.0: needs a number from 0 to below 1"),
        (lambda: SGD(nesterov=1), r"nesterov=1: needs True or False"),
        (lambda: AdamW(weight_decay=-1.0), r"weight_decay=-1.0: needs a number from 0"),
        (lambda: Adam(b2=2), r"b2=2: needs"),
        (lambda: Adam(eps=0.0), r"eps=0.0: needs a positive number"),
        (lambda: Objective(3, len), r"loss=3: needs a function"),
        (lambda: Digits(validation=1.0), r"validation=1.0: needs from 0 to below 1"),
        (lambda: Csv("", "y"), r'path="": needs a file'),
        (lambda: Csv("a.csv", "y", features=("a", "a")), r'features=\("a", "a"\): needs'),
        (lambda: Npz("a.npz", test=0.5, validation=0.5), r"validation and test: need to leave"),
        (lambda: Npz("a.npz", seed=-1), r"seed=-1: needs"),
    ],
)
def test_a_wrong_number_of_a_value_is_named(make, says):
    with pytest.raises(ConfigError, match=f"^{says}"):
        make()


class Own:
    """A value without a printed form of its own."""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Standard(), "Standard()"),
        (Ghost(4), "Ghost(4)"),
        (nn.GroupNorm(8), "GroupNorm(num_groups=8)"),
        (partial(nn.GroupNorm, num_groups=8), "partial(GroupNorm, num_groups=8)"),
        (Csv(Path("a.csv"), target="y"), 'Csv("a.csv", "y")'),
        (MLP((3,), jax.nn.relu), "MLP((3,), relu)"),
        (Noisy(jax.random.key(3)), "Noisy(key([0, 3]))"),
        (lambda: 3, "<lambda>"),
        (Own(), ".test_values.Own object>"),
    ],
    ids=lambda value: value if isinstance(value, str) else "value",  # no addresses
)
def test_a_value_is_printed_as_it_is_written_and_without_addresses(value, text):
    assert show(value).endswith(text)


def test_blame_names_the_users_line():
    with (
        pytest.raises(
            ConfigError, match=r"^norms: ZeroDivisionError: .* \(.*test_values.py:\d+\)$"
        ),
        blame("norms"),
    ):
        jax.eval_shape(lambda: 1 / 0)
    with pytest.raises(ConfigError, match="^as it is$"), blame("norms"):
        raise ConfigError("as it is")
