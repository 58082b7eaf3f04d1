"""All claims, in the order in which they are tried and told."""

import difflib
from collections.abc import Sequence

from experiments.papers.claim import Claim
from experiments.papers.claims import (
    arora_2019,
    balduzzi_2017,
    bjorck_2018,
    bjorck_2018_convolutional,
    brock_2021,
    cao_2023,
    daneshmand_2020,
    daneshmand_2021,
    de_2020,
    de_2020_training,
    frankle_2020,
    galloway_2019,
    heo_2021,
    hoffer_2017,
    ioffe_2015,
    ioffe_2017,
    karakida_2019,
    kohler_2019,
    kosson_2023,
    laarhoven_2017,
    labatie_2021,
    li_2020,
    lubana_2021,
    luo_2019,
    lyle_2024,
    lyu_2022,
    meterez_2024,
    nachum_2024,
    nado_2020,
    santurkar_2018,
    santurkar_2018_noise,
    santurkar_2018_shift,
    schoenholz_2017,
    than_2025,
    wan_2020,
    wu_2021,
    yang_2019,
    yang_activations,
    yang_depth,
    yang_fixed_point,
    zhong_2023,
    zhu_2025,
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
    santurkar_2018.BACKWARD,
    santurkar_2018.VARIATION,
    santurkar_2018.SMOOTHNESS,
    galloway_2019.ROBUSTNESS,
    ioffe_2017.RENORM,
    arora_2019.ANY_RATE,
    de_2020.RESIDUAL,
    yang_depth.DEPTH,
    santurkar_2018_noise.NOISE,
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
    kosson_2023.ANGLE,
    li_2020.EXPONENTIAL,
    heo_2021.GROWTH,
    lubana_2021.APART,
    labatie_2021.POWER,
    brock_2021.STANDARDISED,
    nado_2020.TEST_TIME,
    cao_2023.MARGINS,
    zhong_2023.FEDERATED,
    zhu_2025.DYNAMIC_TANH,
    than_2025.LIPSCHITZ,
    nachum_2024.ODD,
    bjorck_2018_convolutional.CONVOLUTIONAL,
    de_2020_training.SKIP_INIT,
    luo_2019.REGULARISES,
    frankle_2020.LEARNING,
    frankle_2020.SPARSITY,
    lyle_2024.PLASTICITY,
    lyu_2022.EDGE,
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
