"""A mean over victims with its interval. Images of one victim are no independent samples; victims are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from untrojan.records import Record


class Mean(Record):
    """A mean with its 95 % interval, None where one victim says nothing about others; ``victims``: how many."""

    value: float
    low: float | None
    high: float | None
    victims: int


def mean_over_victims(
    values: Mapping[str, Sequence[float]], *, bounds: tuple[float, float] | None = (0.0, 1.0)
) -> Mean | None:
    """The mean of the victims' means, with Student's t-interval over victims; None if there are none.

    values: by victim, one of each seed; bounds: what the quantity cannot leave, for shares.

    >>> mean_over_victims({"a": [0.5, 0.7], "b": [0.6]}).value
    0.6
    """
    means = [math.fsum(own) / len(own) for own in values.values() if own]
    if not means:
        return None
    count, mean = len(means), math.fsum(means) / len(means)
    if count == 1:
        return Mean(value=mean, low=None, high=None, victims=1)
    spread = math.sqrt(math.fsum((one - mean) ** 2 for one in means) / (count - 1) / count)
    half = t_quantile(0.975, count - 1) * spread
    low, high = mean - half, mean + half
    if bounds is not None:
        low, high = max(bounds[0], low), min(bounds[1], high)
    return Mean(value=mean, low=low, high=high, victims=count)


def t_quantile(level: float, freedom: int) -> float:
    """The quantile of Student's t at a level in [0.5, 1), by bisection of its distribution."""
    low, high = 0.0, 1.0
    while t_distribution(high, freedom) < level:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_distribution(middle, freedom) < level else (low, middle)
    return (low + high) / 2


def t_distribution(t: float, freedom: int) -> float:
    """P(T <= t) for t >= 0 and a whole number of degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(1 if odd else 0, freedom - 1, 2):
        total += term
        term *= cosine * cosine * (k + 1) / (k + 2)
    within = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return 0.5 + within / 2
