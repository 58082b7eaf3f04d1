"""All claims, in the order in which they are tried and told."""

import difflib
from collections.abc import Sequence

from experiments.papers import yang_2019
from experiments.papers.claim import Claim

CLAIMS: tuple[Claim, ...] = (
    yang_2019.RATES,
    yang_2019.FIXED_POINT,
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
