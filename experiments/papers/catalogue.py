"""All claims, in the order in which they are tried and told."""

import difflib
from collections.abc import Sequence

from experiments.papers.claim import Claim
from experiments.papers.claims import (
    arora_2019,
    balduzzi_2017,
    bjorck_2018,
    daneshmand_2020,
    daneshmand_2021,
    de_2020,
    galloway_2019,
    hoffer_2017,
    ioffe_2015,
    ioffe_2017,
    karakida_2019,
    kohler_2019,
    laarhoven_2017,
    meterez_2024,
    santurkar_2018,
    santurkar_2018_shift,
    schoenholz_2017,
    wan_2020,
    wu_2021,
    yang_2019,
    yang_activations,
    yang_depth,
    yang_fixed_point,
)

# Claims about the same runs stand together: they share them.
CLAIMS: tuple[Claim, ...] = (
    yang_2019.RATES,
    yang_fixed_point.FIXED_POINT,
    laarhoven_2017.SCALE,
    wan_2020.ANGLE,
    bjorck_2018.TOLERANCE,
    bjorck_2018.SPEED,
    ioffe_2015.ACCURACY,
    ioffe_2015.SCALE_DRIFT,
    ioffe_2015.MEDIAN_DRIFT,
    daneshmand_2020.RANK,
    daneshmand_2021.GAP,
    daneshmand_2021.CENTRED,
    santurkar_2018.IDENTITY,
    santurkar_2018.VARIATION,
    santurkar_2018.SMOOTHNESS,
    galloway_2019.ROBUSTNESS,
    ioffe_2017.RENORM,
    arora_2019.ANY_RATE,
    de_2020.RESIDUAL,
    yang_depth.DEPTH,
    santurkar_2018_shift.NOISE,
    santurkar_2018_shift.GRADIENT_SHIFT,
    yang_activations.ACTIVATIONS,
    meterez_2024.ORTHOGONAL,
    meterez_2024.ELSEWHERE,
    balduzzi_2017.RESIDUAL,
    balduzzi_2017.PLAIN,
    schoenholz_2017.CHI,
    wu_2021.PRECISE,
    kohler_2019.RAYLEIGH,
    karakida_2019.FISHER,
    hoffer_2017.GHOST,
)


def choose(names: Sequence[str]) -> list[Claim]:
    """The claims of these names, or of these first authors; all without a name.

    Raises:
        ValueError: for a name that is neither.
    """
    chosen = [claim for claim in CLAIMS if not names or {claim.name, _author(claim)} & {*names}]
    known = [name for claim in CLAIMS for name in (claim.name, _author(claim))]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else ""
            names_known = ", ".join(claim.name for claim in CLAIMS)
            raise ValueError(f"{name!r}: no claim of this name. {hint} Known: {names_known}.")
    return chosen


def _author(claim: Claim) -> str:
    return claim.name.partition("-")[0]
