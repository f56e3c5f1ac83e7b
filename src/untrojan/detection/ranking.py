"""Which of many short searches go on: pure statistics on sizes, for the search alone. No verdict rests on a rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from untrojan.detection.inversion import Inversion

Array = NDArray[np.float64]
Key = TypeVar("Key")
Pair = tuple[int, int]

HALF = 0.5
"""How far a pair's size is taken relative to what its classes let one expect: the smallest of all goes on even if its
classes have small triggers anyway."""

SPARING, LEAST_LOSS = 0.4, 0.003
"""What it counts for a pair that its trigger does little to other classes, and below what loss that is nothing.
Powers from .3 to .5 choose the attacker's pair about as often in the zoo's calibration half."""


def log_sizes(found: Mapping[Pair, Inversion], classes: int) -> Array:
    """The logarithm of each pair's size, float64 [K, K]; the largest that was found stands in where nothing was, NaN
    where nothing was searched."""
    logs = np.full((classes, classes), np.nan)
    sizes = {pair: i.size for pair, i in found.items()}
    most = max((size for size in sizes.values() if size is not None), default=1.0)
    for pair, size in sizes.items():
        logs[pair] = math.log(max(most if size is None else size, 1e-9))
    return logs


def expected_sizes(logs: Array, margins: Array) -> Array:
    """What the classes of each pair and the margin between them let one expect of its log size: float64 [K, K].

    A two-way fit (Tukey's median polish) after a regression on the margin within this network. logs, margins: float64
    [K, K], NaN where unknown, as on the diagonal. Of fewer than five classes the regression alone.
    """
    known = ~np.isnan(logs) & ~np.isnan(margins)
    centred_sizes = _polished(np.where(known, logs, np.nan), np.nanmean)
    centred_margins = _polished(np.where(known, margins, np.nan), np.nanmean)
    power = float(np.nansum(centred_margins * centred_margins))
    slope = float(np.nansum(centred_sizes * centred_margins)) / power if power > 0 else 0.0
    slope = min(max(slope, 0.0), 1.0)
    rest = np.where(known, logs - slope * margins, np.nan)
    if len(logs) < 5:  # too few to tell rows from columns
        return np.asarray(slope * margins + np.nanmedian(rest) if known.any() else logs)
    # From the fit by means, since alone the medians can stop short where entries are missing.
    return np.asarray(logs - _polished(_polished(rest, np.nanmean), np.nanmedian))


def _polished(values: Array, centre: Callable[..., Any], sweeps: int = 20) -> Array:
    rest = np.array(values, dtype=np.float64)
    full = ~np.isnan(rest)
    for _ in range(sweeps):
        for axis in (1, 0):
            some = full.any(axis)
            middle = np.zeros(len(rest))
            middle[some] = centre(rest[some] if axis == 1 else rest[:, some], axis)
            rest = rest - (middle[:, None] if axis == 1 else middle[None, :])
    return rest


def below_expected(found: Mapping[Pair, Inversion], margins: Array) -> dict[Pair, float]:
    """By how much the log size of each pair with a trigger is below ``expected_sizes``."""
    logs = log_sizes(found, len(margins))
    rest = expected_sizes(logs, margins) - logs
    return {pair: float(rest[pair]) for pair, i in found.items() if i.size is not None and np.isfinite(rest[pair])}


def singular(
    first: Mapping[Pair, Inversion], refined: Mapping[Pair, Inversion], losses: Mapping[Pair, float], margins: Array
) -> dict[Pair, float]:
    """How small a refined pair's trigger is and how little it does to other classes (``losses``, from 0 to 1)."""
    expected = expected_sizes(log_sizes(first, len(margins)), margins)
    return {
        pair: HALF * float(expected[pair]) - math.log(max(i.size, 1e-9)) - SPARING * math.log(losses[pair] + LEAST_LOSS)
        for pair, i in refined.items()
        if i.size is not None and pair in losses and np.isfinite(expected[pair])
    }


def best_ranked(values: Iterable[Mapping[Key, float]], count: int) -> list[Key]:
    """The ``count`` keys with the best rank in any kind; those of equal rank in the order of the kinds.

    >>> best_ranked([{(0, 1): 2.0, (1, 0): 1.0}, {(2, 1): 9.0, (0, 1): 0.5}], 2)
    [(0, 1), (2, 1)]
    """
    best: dict[Key, int] = {}
    for kind in values:
        for rank, key in enumerate(sorted(kind, key=lambda key: -kind[key])):
            best[key] = min(rank, best.get(key, rank))
    return sorted(best, key=lambda key: best[key])[:count]
