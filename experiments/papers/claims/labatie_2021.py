"""Labatie et al. 2021: the power of a deep network's activations ends in the batch's mean."""

import numpy as np

from experiments.papers.claim import (
    Check,
    Claim,
    Line,
    Outcome,
    Plot,
    Setting,
    Source,
    at_least,
    near,
)
from experiments.papers.claims.lubana_2021 import BATCH_NORM, Pass, describe, passes
from experiments.papers.tools.stand_ins import NORMS, RIVALS, stand_ins

_LIMIT = 1 / np.pi
"""(E ReLU(z))²/E ReLU(z)² of a standard normal z, which batch norm makes in each layer anew."""


def measure_with(setting: Setting, name: str) -> Outcome:
    """The share of power in the batch's mean after the last layer, with the norm of this name."""
    slack = 2 if setting.quick else 1
    found = passes(setting)
    seen, others = found[name], {rival: found[rival] for rival in NORMS}
    depth = seen.power.shape[1]
    at = f"share of power in the batch's mean after {depth} layers"
    allowed = near(_LIMIT, absolute=0.02 * slack)
    checks = [
        Check(f"batch norm: {at}", seen.power[:, -1], allowed, "theory"),
        _constant("layer norm", at, others, "published"),
        _constant("no norm", at, others, "theory"),
    ]
    layers = np.arange(1, depth + 1)
    lines = [
        Line("batch norm", layers, seen.power),
        Line("batch norm, theory", layers, np.full(depth, _LIMIT), expected=True),
        *(Line(rival, layers, each.power) for rival, each in others.items()),
    ]
    plot = Plot("Power in the mean of the batch", "layer", "share of the mean square", lines)
    return Outcome(checks, [plot])


def _constant(name: str, at: str, others: dict[str, Pass], source: Source) -> Check:
    return Check(f"{name}: {at}", others[name].power[:, -1], at_least(0.95), source, control=True)


POWER = Claim(
    name="labatie-power",
    sentence="With layer norm the power of activations goes into the batch's mean as the network "
    "becomes deep, so that units become constants; with batch norm it does not.",
    citation="Labatie, Masters, Eaton-Rosen & Luschi 2021, Proxy-Normalizing Activations to Match "
    "Batch Normalization while Removing Batch Dependence, NeurIPS, arXiv:2106.03743, theorem 1",
    setup=describe,
    formula="sum over units of E[h]²/sum of E[h²], E over the batch; batch norm and ReLU: 1/pi",
    measure=lambda setting: measure_with(setting, BATCH_NORM),
    group="further",
    registered="2026-11-28",
    stand_ins=stand_ins(measure_with, {name: name for name in RIVALS}, must_fail=NORMS),
)
