"""From one learning rate to a better one, by short trainings."""

import math
from collections.abc import Callable

FACTOR = math.sqrt(10)  # between two rates that are compared
MOST = 5  # rates to either side


def climb(score: Callable[[float], float], rate: float) -> dict[float, float]:
    """Compare a rate with the next higher and the next lower one, and go on to the better until neither is.

    Args:
        score: of a rate, the lower the better; infinite where it cannot be used.
        rate: where to begin.

    Returns:
        The rates that were tried, each with its score. The best of them has a worse one on either side, or lies five
        rates from the first.
    """
    scores: dict[int, float] = {}
    at = 0
    while True:
        for k in (at, at + 1, at - 1):
            if k not in scores and abs(k) <= MOST:
                scores[k] = score(rate * FACTOR**k)
        best = min((k for k in (at, at - 1, at + 1) if k in scores), key=scores.__getitem__)
        if not math.isfinite(scores[best]) and at > -MOST:
            best = at - 1  # lower, until one can be used
        elif best == at or scores[best] == scores[at]:
            return {rate * FACTOR**k: scores[k] for k in sorted(scores)}
        at = best
