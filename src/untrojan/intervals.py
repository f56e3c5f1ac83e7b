"""Intervals of shares."""

from __future__ import annotations

import math
from statistics import NormalDist

from untrojan.errors import UsageError
from untrojan.records import Rate


def wilson(successes: int, count: int, level: float = 0.95) -> Rate | None:
    """A share with its Wilson score interval (Wilson, JASA 1927); None if nothing was counted.

    It speaks of images from one victim. Images of several victims are not independent samples: a statement over
    victims needs an interval over victims.
    """
    if not 0 < level < 1:
        raise UsageError(f"the level of an interval lies between 0 and 1, such as 0.95, got {level}")
    if not 0 <= successes <= count:
        raise UsageError(f"{successes} successes of {count} is not a share")
    if count == 0:
        return None
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, shrink = successes / count, 1 + z * z / count
    centre = (share + z * z / (2 * count)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # The closed form misses 0 and 1 by rounding where it should touch them.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == count else min(1.0, centre + half)
    return Rate(value=share, low=low, high=high)
