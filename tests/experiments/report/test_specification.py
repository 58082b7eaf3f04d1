"""Arrays of a page come back from their text, each kept once."""

import base64

import numpy as np
import pytest

from experiments.report.specification import Axis, Curve, Packer, packed, top_of_nines


def unpacked(kept):
    codes = np.frombuffer(base64.b64decode(kept["codes"]), "<u2").astype(float)
    values = kept["low"] + codes / 65534 * (kept["high"] - kept["low"])
    values = np.exp(values) if kept["log"] else values
    return np.where(codes == 65535, np.nan, values).reshape(kept["shape"])


@pytest.mark.parametrize(
    ("values", "tolerance"),
    [(np.linspace(-3, 97, 200), {"atol": 1e-3}), (np.geomspace(1e-9, 1e3, 200), {"rtol": 3e-4})],
    ids=["linear", "many decades"],
)
def test_sixteen_bits_hold_a_value(values, tolerance):
    array = values.reshape(4, 50).astype(np.float32)
    array[1, 7] = np.nan
    np.testing.assert_allclose(unpacked(packed(array)), array, **tolerance)


def test_nothing_but_missing_values():
    assert np.isnan(unpacked(packed(np.full((5, 5), np.nan)))).all()


def test_infinities_are_missing():
    array = np.linspace(0, 1, 50)
    array[3] = np.inf
    assert np.isnan(unpacked(packed(array))[3])
    assert packed(np.array([1.0, np.inf, np.nan]))["values"] == [1.0, None, None]


def test_equal_arrays_are_kept_once_and_defaults_left_out():
    packer, x = Packer(), np.arange(50.0)
    one, two = (packer.pack(Curve(0, x, np.stack([x, x + i]))) for i in (1, 2))
    assert (one["x"], two["x"]) == (0, 0)
    assert one["runs"] != two["runs"]
    assert len(packer.arrays) == 3
    assert one.keys() == {"network", "x", "runs", "kind"}
    assert packer.pack(Axis("step", steps=True)) == {"label": "step", "steps": True}


def test_integers_and_bytes_stay_what_they_are():
    assert packed(np.arange(40))["values"] == list(range(40))
    heights = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert packed(heights) == {"shape": [2, 3], "bytes": base64.b64encode(bytes(range(6))).decode()}


def test_the_axis_ends_a_little_above_what_it_shows():
    assert top_of_nines(90) == pytest.approx(93)
    assert top_of_nines(100) == pytest.approx(99.93, abs=0.04)
