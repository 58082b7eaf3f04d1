"""Families of data that batch norm meets, and of running statistics, each drawn from a seed."""

import itertools
from collections.abc import Callable

import numpy as np

ROWS, FEATURES = 512, 4  # of most families, so that they share their compiled programs
LARGEST = float(np.finfo(np.float32).max)

Draw = Callable[[np.random.Generator], np.ndarray]


def normal(rng, mean=0.0, std=1.0, shape=(ROWS, FEATURES)):
    return mean + std * rng.standard_normal(shape)


def with_rows(rows, value, mean=0.0, shape=(ROWS, FEATURES)) -> Draw:
    """N(mean, 1), and `value` in some rows."""

    def draw(rng):
        x = normal(rng, mean, shape=shape)
        x[list(rows)] = value
        return x

    return draw


def means_and_deviations() -> dict[str, Draw]:
    ratios = [0.0, 1.0, -10.0, 1e2, -1e3, 1e4, -1e5, 1e6, -1e6, 1e7, -1e7]
    powers = [-30, -25, -20, -15, -10, -6, -3, 0, 3, 6, 9, 12, 12.5, 12.75, 13, 13.25, 13.5, 13.75]
    powers += [14, 15, 17, 18, 19, 19.2, 20, 25, 30, 35, 37]
    return {
        f"N({ratio * 10.0**power:.4g}, {10.0**power:.4g})": lambda rng, r=ratio, s=10.0**power: (
            normal(rng, r * s, s)
        )
        for ratio, power in itertools.product(ratios, powers)
        if (abs(ratio) + 5) * 10.0**power < LARGEST
    }


def structured_rows() -> dict[str, Draw]:
    """Some of the first, the middle and the last row untypical, on the same side."""
    places = {"first": 0, "middle": ROWS // 2, "last": ROWS - 1}
    subsets = [s for n in (1, 2, 3) for s in itertools.combinations(places, n)]
    return {
        f"N({mean:g}, 1), {value:g} in the {' and '.join(subset)} row": with_rows(
            [places[name] for name in subset], value, mean
        )
        for subset in subsets
        for mean, value in ((1000.0, 0.0), (-30.0, 0.0), (0.0, 1e4), (5.0, -1e9))
    }


def outliers() -> dict[str, Draw]:
    sets = {
        "row 17": [17],
        "row 0": [0],
        "the first and the last row": [0, ROWS - 1],
        "the first, middle and last row": [0, ROWS // 2, ROWS - 1],
        "40 rows": range(5, ROWS, 13),
        "all rows but two": [row for row in range(ROWS) if row not in (3, 400)],
    }
    sizes = [1e3, -1e5, 1e6, 1e8, -1e10, 1e12, 1e13, 1e14, -1e16, 1e17, 1e18, 1e19]
    sizes += [1e20, -1e25, 1e30, 1e37]
    return {
        f"{size:g} in {name}": with_rows(rows, size)
        for name, rows in sets.items()
        for size in sizes
    }


def with_feature(value, feature=1) -> Draw:
    """An ordinary batch but for one feature."""

    def draw(rng):
        x = normal(rng, 3)
        x[:, feature] = value(rng)
        return x

    return draw


def in_one_feature() -> dict[str, Draw]:
    far = with_rows([17], 1e14)
    return {
        "one constant among others": with_feature(lambda rng: 12345.678),
        "one dead feature": with_feature(lambda rng: 0.0),
        "one feature far off": with_feature(lambda rng: normal(rng, 1e6)[:, 0]),
        "one feature with an outlier": with_feature(lambda rng: far(rng)[:, 0]),
        "one feature of N(0, 1e30)": with_feature(lambda rng: normal(rng, 0, 1e30)[:, 0]),
    }


def distributions() -> dict[str, Draw]:
    shape = (ROWS, FEATURES)
    return {
        **{
            f"heavy tails (10 z)^{power}": lambda rng, p=power: (10 * normal(rng)) ** p
            for power in (3, 5, 7, 9, 11, 13)
        },
        "Cauchy": lambda rng: rng.standard_cauchy(shape),
        "lognormal of deviation 20": lambda rng: np.exp(np.clip(20 * normal(rng), -80, 80)),
        "2 % of elements 1e16 z": lambda rng: np.where(
            rng.random(shape) < 0.02, 1e16 * normal(rng), 0
        ),
        "sparse": lambda rng: np.where(rng.random(shape) < 0.02, 5.0, 0.0),
        "outliers of 1e6 in one per cent": lambda rng: np.where(
            rng.random(shape) < 0.01, 1e6, normal(rng)
        ),
        "two far clusters": lambda rng: np.where(rng.random(shape) < 0.5, 1e5, -1e5) + normal(rng),
        "integers 0 to 255": lambda rng: rng.integers(0, 256, shape) * 1.0,
        "sorted": lambda rng: np.sort(normal(rng, 50, 30), axis=0),
        "sorted drift over a large mean": lambda rng: 1e4 + np.sort(normal(rng), axis=0),
        "a line": lambda rng: np.linspace([1e3] * FEATURES, [2e3] * FEATURES, ROWS),
        "two halves far apart": lambda rng: normal(rng) + 1e5 * (np.arange(ROWS) >= 256)[:, None],
        "scales 1e-20 to 1e19 side by side": lambda rng: normal(rng) * [1e-20, 1e-5, 1e8, 1e19],
        "means 0 to 1e7 side by side": lambda rng: normal(rng) + np.array([0, 1e2, -1e5, 1e7]),
    }


def degenerate() -> dict[str, Draw]:
    shape = (ROWS, FEATURES)
    constants = [0.0, 3.7, -0.1, 12345.678, 1e-20, 1e10, 1e18, -1e20, 1e30, 3e38]
    return {
        **{f"constant {value:g}": lambda rng, v=value: np.full(shape, v) for value in constants},
        "constants one unit in the last place apart": lambda rng: np.where(
            rng.random(shape) < 0.5, np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(1))
        ),
        "denormals": lambda rng: 1e-39 * normal(rng),
        "near the largest": lambda rng: rng.uniform(-0.99, 0.99, shape) * LARGEST,
        "positive near the largest": lambda rng: rng.uniform(0.5, 0.99, shape) * LARGEST,
        "the largest and its negative": lambda rng: (
            np.where(rng.random(shape) < 0.5, 1, -1) * LARGEST
        ),
        "zero but for one row": with_rows([300], 1.0, shape=shape),
        "zero in most rows, N(0, 1e30) in the rest": lambda rng: (
            normal(rng, 0, 1e30) * ((np.arange(ROWS) > 0) & (np.arange(ROWS) < 100))[:, None]
        ),
    }


def shapes() -> dict[str, Draw]:
    """Other numbers of rows and features, at ordinary and at large means."""
    sizes = [(2, 7), (3, 7), (5, 3), (33, 1000), (5, 20_000), (20_011, 2), (65_536, 3)]
    return {
        f"N({mean:g}, {std:g}) of shape {shape}": lambda rng, m=mean, s=std, shape=shape: normal(
            rng, m, s, shape
        )
        for shape in sizes
        for mean, std in ((5.0, 3.0), (-1e4, 0.1))
    }


def corner_pixels(mean, shape=(16, 12, 12, 4)) -> Draw:
    def draw(rng):
        x = normal(rng, mean, shape=shape)
        x[0, 0, 0] = x[-1, -1, -1] = 0
        return x

    return draw


def first_tokens(rng):
    x = normal(rng, 100, shape=(32, 64, 2))
    x[:, 0] = 0
    return x


def padded(rng):
    x = normal(rng, 1000, shape=(16, 12, 12, 4))
    x[:, [0, -1]] = x[:, :, [0, -1]] = 0
    return x


def layouts() -> dict[str, Draw]:
    """Structure as images and sequences have it."""
    return {
        "images of N(10, 1), two corner pixels zero": corner_pixels(10),
        "images of N(100, 1), two corner pixels zero": corner_pixels(100),
        "images of N(1e4, 2)": lambda rng: normal(rng, 1e4, 2, (16, 12, 12, 4)),
        "images, one of them black": lambda rng: (
            normal(rng, 300, shape=(16, 12, 12, 4)) * (np.arange(16) != 7)[:, None, None, None]
        ),
        "sequences of N(100, 1), first token zero": first_tokens,
        "a border of zeros around N(1000, 1)": padded,
    }


def large() -> dict[str, Draw]:
    """A million rows, where an error that grows with their number shows."""
    shape = (2**20, 1)
    return {
        "a million rows of N(10, 1)": lambda rng: normal(rng, 10, shape=shape),
        "a million rows of N(1e4, 1)": lambda rng: normal(rng, 1e4, shape=shape),
        "a million rows of N(1000, 1), the first and last zero": with_rows([0, -1], 0, 1e3, shape),
        "a million rows of N(0, 1), the first and last 1e4": with_rows([0, -1], 1e4, 0, shape),
        "a million rows of N(0, 1), 1e14 in row 17": with_rows([17], 1e14, 0, shape),
        "a million rows, sorted": lambda rng: np.sort(normal(rng, 50, 30, shape), axis=0),
        "a million rows of constant 0.1": lambda rng: np.full(shape, 0.1),
        "-0.1 or 0.1 in 65536 rows of 64": lambda rng: rng.choice([-0.1, 0.1], (65_536, 64)),
    }


FAMILIES: dict[str, Draw] = {
    **means_and_deviations(),
    **structured_rows(),
    **outliers(),
    **in_one_feature(),
    **distributions(),
    **degenerate(),
    **layouts(),
    **shapes(),
    **large(),
}


def draw(name: str, seed: int = 1) -> np.ndarray:
    """A family in float32, its denormals zero, as XLA reads them on a CPU."""
    x = FAMILIES[name](np.random.default_rng(seed)).astype(np.float32)
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.float32(0), x)


def good(mean, var):
    return mean + 0.03 * np.sqrt(var), 1.1 * var


# From the true mean and variance (in extended precision) to running ones.
STATISTICS: dict[str, Callable] = {
    "good": good,
    "exact": lambda mean, var: (mean, var),
    "cold": lambda mean, var: (0 * mean, 1 + 0 * var),
    "far": lambda mean, var: (mean + 1e3 * np.sqrt(var + 1e-3), 1e-6 * var),
    "narrow": lambda mean, var: (mean - 30 * np.sqrt(var), 0 * var),
    "wrong by 1e20": lambda mean, var: (mean + 1e20, 1e20 + 0 * var),
    "wrong by -1e20, var 1e-20": lambda mean, var: (mean - 1e20, 1e-20 + 0 * var),
    "at the largest": lambda mean, var: (LARGEST + 0 * mean, LARGEST + 0 * var),
}


def statistics(name: str, mean, var) -> tuple[np.ndarray, np.ndarray]:
    """Running statistics of float32, finite."""
    found = STATISTICS[name](mean, var)
    return tuple(np.clip(value, -LARGEST, LARGEST).astype(np.float32) for value in found)
