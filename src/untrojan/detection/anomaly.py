"""Which trigger sizes are anomalously small: pure statistics, no networks.

Sizes are compared as logarithms, so that a value of 0.69 means half of what is usual, whatever the unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Key = TypeVar("Key")


def anomaly_scores(statistics: Sequence[float] | Array) -> Array:
    """(statistic - median) / MAD for each, signed, without the factor 1.4826: float64 [n]. The paper's score (Apdx C),
    the statistic being 1 / size.

    If more than half the statistics coincide, the MAD is 0 and would call any deviation infinite; it is never taken
    for less than a hundredth of the median. If all coincide every score is 0.
    """
    values = np.asarray(statistics, dtype=np.float64)
    if values.size == 0:
        return values
    centre = float(np.median(values))
    spread = max(float(np.median(np.abs(values - centre))), 0.01 * abs(centre))
    return np.zeros_like(values) if spread == 0 else (values - centre) / spread


def log_sizes(sizes: Sequence[float | None]) -> Array:
    """float64 [n]. Where no trigger was found, the largest size that was found stands in: one at least that large was
    tried, so the differences below are underestimated. NaN if none was found at all."""
    logs = np.array([np.nan if s is None else np.log(max(s, 1e-9)) for s in sizes], dtype=np.float64)
    return logs if np.isnan(logs).all() else np.where(np.isnan(logs), np.nanmax(logs), logs)


FEW, MANY = 5, 20
"""Below FEW classes there is too little to take a median of, or to fit. Above MANY the median tells only that most
classes cannot be reached with a small trigger at all."""


def usual(logs: Array, many: bool = False) -> float:
    """What is usual among values: their median; of few the smallest, of many the smallest tenth, so that no ordinary
    value seems odd because the others happen to be large."""
    share = 0.0 if logs.size < FEW else 0.1 if many else 0.5
    return float(np.quantile(logs, share))


def in_effect(count: int) -> int:
    """How many values compared with what is ``usual`` give as large a largest one as ``count`` do.

    Only those beyond the reference compete: half of them where it is the median, a tenth where it is the smallest
    tenth, so 43 classes there are no more than 10 here.
    """
    return count if count <= MANY else max(10, round(0.2 * count))


def below_the_others(logs: Array) -> Array:
    """By how much each is under what is usual among the others: float64 [n]; 0 if there are no others."""
    if logs.size < 2:
        return np.zeros(logs.shape)
    return np.array([usual(np.delete(logs, i), logs.size > MANY) for i in range(logs.size)]) - logs


USUAL_LEAD = 0.3
"""By how much the smallest of values may lie below the next, as a log ratio, in an honest network, and that below the
one after it: three quarters of patches into one class lead by less, and nine tenths of perturbations."""


def smallest(logs: Array, among: int | None = None) -> float:
    """The smallest of values; or what it would be if none of the smaller half were farther below the next than
    ``USUAL_LEAD``, since other targets of the attacker's may be among them. Of few values the smallest in any case.

    among: how many values these are the smallest of; None is that they are all.
    """
    count = logs.size if among is None else among
    ordered = np.sort(logs)[: (count + 1) // 2 if count >= FEW else 1]
    return float(np.max(ordered - USUAL_LEAD * np.arange(ordered.size)))


def _expected(place: int, count: int) -> float:
    """The value at a place, 1 the smallest, of so many standard normal ones in order: Blom's approximation."""
    return NormalDist().inv_cdf((place - 0.375) / (count + 0.25))


def usual_gap(count: int) -> float:
    """How far the smallest of so many normal values lies below the next, over that of ten."""

    def gap(n: int) -> float:
        return _expected(2, n) - _expected(1, n)

    return gap(count) / gap(10)


def second_of_ten(logs: Array) -> float:
    """The smallest but one of ten values; of fewer or more what is as low as that among them, were they normal, and of
    very few the smallest."""
    places = [_expected(place, logs.size) for place in range(1, logs.size + 1)]
    return float(np.interp(_expected(2, 10), places, np.sort(logs)))


def below_the_smallest(logs: Array, among: int | None = None) -> Array:
    """By how much each is under the ``smallest`` of the others: float64 [n]; 0 if there are no others. among: how many
    values these are the smallest of, None if they are all."""
    if logs.size < 2:
        return np.zeros(logs.shape)
    others = None if among is None else among - 1
    return np.array([smallest(np.delete(logs, i), others) for i in range(logs.size)]) - logs


def below_the_next(logs: Array) -> Array:
    """By how much each is under the smallest but one of the others, since another target may have the smallest; of few
    under the smallest: float64 [n]; 0 if there are no others."""
    if logs.size < 2:
        return np.zeros(logs.shape)
    place = 0 if logs.size <= FEW else 1
    return np.array([np.sort(np.delete(logs, i))[place] for i in range(logs.size)]) - logs


def below_two_way_fit(logs: Array, sweeps: int = 20) -> Array:
    """By how much each entry of a matrix is under what its row and its column let expect: float64 [K, K].

    The fit is Tukey's median polish, which stands until half of a row or column is odd, begun from the fit by means,
    since alone it can stop short where entries are missing. NaN marks those, such as the diagonal. Fewer than five
    classes leave too little to fit: all 0.
    """
    if len(logs) < FEW:
        return np.where(np.isnan(logs), np.nan, 0.0)
    rest = np.array(logs, dtype=np.float64)
    for centre in (np.mean, np.median):
        for _ in range(sweeps):
            rest = rest - _row_centres(rest, centre)[:, None]
            rest = rest - _row_centres(rest.T, centre)[None, :]
    return -rest


def _row_centres(values: Array, centre: Callable[[Array], Any]) -> Array:
    """The mean or median of each row over what is not NaN; 0 for an empty row."""
    centres = [centre(row[~np.isnan(row)]) if (~np.isnan(row)).any() else 0.0 for row in values]
    return np.array(centres, dtype=np.float64)


def oddest(values: Iterable[Mapping[Key, float]], count: int) -> list[Key]:
    """The ``count`` keys with the best rank in any kind; those of equal rank in the order of the kinds.

    >>> oddest([{(0, 1): 2.0, (1, 0): 1.0}, {(2, 1): 9.0, (0, 1): 0.5}], 2)
    [(0, 1), (2, 1)]
    """
    ranked = [sorted(kind, key=lambda key: -kind[key]) for kind in values]
    best: dict[Key, int] = {}
    for kind in ranked:
        for rank, key in enumerate(kind):
            best[key] = min(rank, best.get(key, rank))
    return sorted(best, key=lambda key: best[key])[:count]
