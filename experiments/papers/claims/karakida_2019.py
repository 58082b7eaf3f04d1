"""Karakida et al. 2019: what in batch norm keeps the sharpest direction from growing with width."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.papers.claim import Check, Claim, Line, Outcome, Plot, Setting, at_most, near
from experiments.papers.tools.deep import NO_EPSILON
from experiments.papers.tools.spread import spread_each
from jbn import batch_norm, init

_INPUTS = 100
_EXAMPLES = 64
_WIDTHS = (32, 128, 512)
_PLAIN = "without"
_CENTRED = "mean of the output subtracted"
_HIDDEN = "batch norm of the hidden layers"
_NETS = {_PLAIN: (False, False), _CENTRED: (False, True), _HIDDEN: (True, False)}


def sharpest(hidden_norm: bool, centred: bool, width: int, seed: jax.Array) -> jax.Array:
    """Largest eigenvalue of the Fisher information of 64 random examples, unit Gaussian output."""
    keys = jax.random.split(jax.random.key(seed), 4)
    x = jax.random.normal(keys[0], (_EXAMPLES, _INPUTS))
    he = jax.nn.initializers.he_normal()
    kernels = [
        he(key, shape)
        for key, shape in zip(keys[1:], ((_INPUTS, width), (width, width), (width, 1)))
    ]

    def outputs(kernels: list[jax.Array]) -> jax.Array:
        h = x
        for kernel in kernels[:-1]:
            z = h @ kernel
            if hidden_norm:
                z, _ = batch_norm(z, *init(width), epsilon=NO_EPSILON)
            h = jax.nn.relu(z)
        y = (h @ kernels[-1])[:, 0]
        return y - jnp.mean(y) if centred else y

    jacobian = jax.jacrev(outputs)(kernels)
    rows = jnp.concatenate([j.reshape(_EXAMPLES, -1) for j in jacobian], axis=1)
    # The Fisher matrix J'J/n has the eigenvalues of the small JJ'/n.
    return jnp.linalg.eigvalsh(rows @ rows.T / _EXAMPLES)[-1]


def measure(setting: Setting) -> Outcome:
    """The exponent of the largest eigenvalue over the width."""
    seeds = setting.seeds(full=12, quick=12)
    widths = _WIDTHS[: setting.pick(full=len(_WIDTHS), quick=2)]
    exponents, lines = {}, []
    for name, net in _NETS.items():
        runs = {width: partial(sharpest, *net, width) for width in widths}
        values = np.stack([*spread_each(runs, seeds).values()], axis=1)
        exponents[name] = np.polyfit(np.log(widths), np.log(values).T, 1)[0]
        lines.append(Line(name, widths, values))
    linear = near(1.0, absolute=0.35 if setting.quick else 0.25)
    slower = exponents[_CENTRED] - exponents[_PLAIN]
    checks = [
        Check(f"{_PLAIN}: exponent over the width", exponents[_PLAIN], linear, "theory"),
        Check(f"{_HIDDEN}: exponent over the width", exponents[_HIDDEN], linear, "theory"),
        Check(f"{_CENTRED}: exponent less that without", slower, at_most(-0.2), "regression"),
    ]
    plot = Plot("Fisher information", "width", "largest eigenvalue", lines, log="xy")
    remarks = [
        "With a fixed number of examples a part that grows remains when the mean is subtracted."
    ]
    return Outcome(checks, [plot], remarks)


FISHER = Claim(
    name="karakida-fisher",
    sentence="The largest eigenvalue of the Fisher information grows with the width; subtracting "
    "the output's mean over the batch slows that, batch norm of the hidden layers does not.",
    citation="Karakida, Akaho & Amari 2019, The Normalization Method for Alleviating Pathological "
    "Sharpness in Wide Neural Networks, NeurIPS, arXiv:1906.02926",
    setup="100-M-M-1 ReLU, He initialisation, widths M of 32, 128 and 512, 64 standard normal "
    "examples as one batch, no epsilon; 12 seeds.",
    formula="exponent of the largest eigenvalue of J'J/64 over M, J the outputs' Jacobian in the "
    "weights",
    measure=measure,
    group="further",
)
