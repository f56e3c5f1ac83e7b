"""By how much the trigger of a pair of classes is smaller than its classes let expect, and how it stands out alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from untrojan.detection.anomaly import Array, below_two_way_fit, log_sizes
from untrojan.detection.inversion import Inversion
from untrojan.detection.results import KindResults, shrinkage

MARGIN_POWER = 0.75
"""How far the size of a pair's trigger follows the classifier's own margin between the two classes."""

SPILL_POWER, LEAST_SPILL = 0.4, 0.003
"""How much it counts that a pair's trigger does little to images of other classes, and below what it is next to
nothing. Powers from .3 to .5 tell the attacked victims of the calibration half from the clean ones about as well."""

LET_EXPECT = 0.5
"""How far a single pair's size is taken relative to what its classes let expect: half-way between that and the size as
it is. The trigger of an attacker of one class is often the smallest of all pairs by far, also between classes that have
small triggers anyway."""

ALIKE_MARGIN, ALIKE_BACK = 0.75, 0.5
"""How much less odd a single pair is for a small margin between its classes, beyond what they let expect, and for a
small trigger the other way. Two traffic signs that differ in a digit are alike both ways, with every seed; who poisons
one class teaches nothing of the way back. As single pairs were compared first, honest networks of ten signs had values
up to 1.97 without it (in both kinds and as a blend together), with it 1.6; those of attacked ones were hardly less."""

SPREAD = {"patch": 0.263, "additive": 0.154}
"""How far the values of pairs lie apart in honest networks of digits, as ``spread`` takes it, in their mean."""

SPREAD_POWER, LEAST_SPREAD = 0.75, 0.5
"""How far a pair's value is measured by its own network's spread, and the share of ``SPREAD`` that this has at least.

Pairs of photographs' classes differ two thirds as much as those of digits', in their honest networks' extremes, too;
wholly by its own spread, an attacked network of digits is found a little less often."""

NEXT_PAIRS = 3
"""A single pair stands out from so many others, the oddest ones: an attacker's second pair is one of them at most."""


def pair_values(pairs: Mapping[tuple[int, int], Inversion], margins: Array) -> dict[tuple[int, int], float]:
    """By how much each pair's trigger is smaller than its classes and the margin between them let expect, as logs."""
    matrix = np.full(margins.shape, np.nan)
    for pair, size in zip(pairs, log_sizes([i.size for i in pairs.values()]), strict=True):
        matrix[pair] = size - MARGIN_POWER * margins[pair]
    values = below_two_way_fit(matrix) if pairs else matrix
    return {pair: float(values[pair]) for pair, i in pairs.items() if i.size is not None}


def spread(values: Array, classes: int) -> float:
    """The standard deviation of the values of ``pair_values``, but for the largest eighth, which may be an attacker's.

    values: float64 [n]; NaN if the fit has more than half as many parameters, as where a deadline left most pairs out.
    """
    body = np.sort(values)[: values.size - values.size // 8]
    free = values.size - (2 * classes - 1)
    return (
        math.sqrt(float(np.square(body).sum()) / body.size * values.size / free)
        if 2 * free >= values.size > 0
        else math.nan
    )


def own_scale(kind: str, result: KindResults, margins: Array) -> float:
    """By what values of pairs are divided, about 1 where the pairs differ as those of digits do."""
    values = np.array([v for v in pair_values(result.pairs, margins).values() if np.isfinite(v)])
    share = spread(values, len(margins)) / SPREAD[kind]
    return max(share, LEAST_SPREAD) ** SPREAD_POWER if math.isfinite(share) else 1.0


def refined_values(result: KindResults, margins: Array) -> dict[tuple[int, int], float]:
    """The same for the refined pairs: what they were before, and by how much more they shrank than others did.

    A chance find on a handful of images hardly shrinks, or grows, when more images are to follow; an attacker's trigger
    shrinks further. How much any trigger does depends on the classifier, so it is compared with what at least three
    quarters of the refined ones do.
    """
    before = pair_values(result.pairs, margins)
    shrunk = {
        pair: shrinkage(result.pairs[pair], refined)
        for pair, refined in result.refined.items()
        if refined.size is not None and pair in before
    }
    ordinary = float(np.quantile(list(shrunk.values()), 0.25)) if shrunk else 0.0
    return {pair: before[pair] + by - ordinary for pair, by in shrunk.items()}


def single_values(result: KindResults, margins: Array) -> dict[tuple[int, int], float]:
    """By how much a refined pair is odder than the oddest others, if sparing other classes counts as well.

    How small the triggers of the oddest pairs are, and how much they spill over, differs between honest classifiers;
    that one of them is by far the smallest and the most sparing does not. Pairs that were searched on again count as
    they ended, where a chance find's lead is smaller.
    """
    alike, latest = likenesses(result.pairs, margins), result.latest
    first = pair_values(result.pairs, margins)

    def odd(pair: tuple[int, int]) -> float:
        let_expect = first[pair] + _log(result.pairs[pair])
        return LET_EXPECT * let_expect - _log(latest[pair]) - alike[pair] + _spared(result.spills[pair])

    return _beyond_the_next(
        {
            pair: odd(pair)
            for pair, i in result.refined.items()
            if i.size is not None and pair in result.spills and np.isfinite(first.get(pair, np.nan))
        }
    )


def likenesses(pairs: Mapping[tuple[int, int], Inversion], margins: Array) -> dict[tuple[int, int], float]:
    """How odd a pair may be since its classes look alike: the margin from one to the other is smaller than theirs let
    expect, or the trigger for the way back is."""
    closer = below_two_way_fit(np.where(np.eye(len(margins), dtype=bool), np.nan, margins))
    back = pair_values(pairs, margins)
    return {
        (s, t): ALIKE_MARGIN * _above_zero(closer[s, t]) + ALIKE_BACK * _above_zero(back.get((t, s), 0.0))
        for s, t in pairs
    }


def _above_zero(value: float) -> float:
    return max(float(value), 0.0) if np.isfinite(value) else 0.0


def even_single_values(result: KindResults) -> dict[tuple[int, int], float]:
    """The same of a kind of ``EVEN``, whatever its classes let expect."""
    return _beyond_the_next(
        {
            pair: _spared(result.spills[pair]) - _log(i)
            for pair, i in result.singled.items()
            if i.size is not None and pair in result.spills
        }
    )


def _log(inversion: Inversion) -> float:
    return float(log_sizes([inversion.size])[0])


def _spared(spill: float) -> float:
    return -SPILL_POWER * math.log(spill + LEAST_SPILL)


def _beyond_the_next(values: Mapping[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    """By how much each is larger than the ``NEXT_PAIRS`` largest others are on average; none if these are fewer."""
    if len(values) <= NEXT_PAIRS:
        return {}
    return {
        pair: value - float(np.mean(sorted(v for other, v in values.items() if other != pair)[-NEXT_PAIRS:]))
        for pair, value in values.items()
    }
