"""Steps at which a study is evaluated, and those between on which gradients are measured."""

import numpy as np

# Measuring a step costs as much as taking it: two successive steps in fifty are measured, and two
# such pairs at least between evaluations, but one in the windows of two or three steps.
STEPS_PER_PAIR = 50
FEWEST_PAIRS = 2


def evaluation_steps(steps: int, evaluate_every: int) -> list[int]:
    """Returns the steps after which a study is evaluated: none, a few early ones, then evenly.

    Early are 2, 5, 10, 20, 50, ... up to half of `evaluate_every`: what happens at once would
    otherwise be known to be no later than the first evaluation, and no more.

    >>> evaluation_steps(300, 100)
    [0, 2, 5, 10, 20, 50, 100, 200, 300]
    """
    rounded = (digit * 10**power for power in range(10) for digit in (1, 2, 5))
    early = [step for step in rounded if 2 <= step <= evaluate_every // 2]
    return [0, *early, *range(evaluate_every, steps + 1, evaluate_every)]


def plain_steps(window: int, longest: int) -> np.ndarray:
    """Returns how many steps go before each measured pair, so that pairs spread over a window.

    As many numbers for every window as the `longest` has pairs, so that one program serves all: -1
    for each pair that this one lacks.
    """
    pairs = _pairs(window)
    ends = np.linspace(0, window - 2 * pairs, pairs + 1).astype(np.int32)
    lacking = np.full(_pairs(longest) - pairs, -1, np.int32)
    return np.concatenate([np.diff(ends), lacking])


def _pairs(window: int) -> int:
    return min(max(window // STEPS_PER_PAIR, FEWEST_PAIRS), window // 2)
