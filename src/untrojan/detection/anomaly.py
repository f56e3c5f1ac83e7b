"""Which trigger sizes are anomalously small: pure statistics, no networks.

The paper's statistic of a pair is the reciprocal of its trigger's size (Apdx C). Classes that look alike have small
triggers too: in an honest classifier the truck-to-automobile one can score 9. So the size is measured against what the
classifier's own margin between the two classes lets expect.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """When a score is an anomaly.

    pair: a single pair on its own. target: the median score of all pairs into one target, which an all-to-one attack
    raises together. member: a pair that belongs to a target so found. linked: a pair that the trigger of a detected one
    moves as well. margin_power: how far the statistic follows the
    margin; 0 is the paper's. Chosen on victims trained for it (docs in ``benchmarks/METHODOLOGY.md``).
    """

    pair: float = 10.0
    target: float = 5.0
    member: float = 2.0
    linked: float = 4.0
    margin_power: float = 0.75


def statistics_of(
    sizes: Sequence[float | None] | Array, margins: Sequence[float] | Array, margin_power: float
) -> Array:
    """margin ** margin_power / size of each pair, 0 where no trigger was found: float64 [n].

    margins: mean logit of the source class minus that of the target on clean source images; those under a tenth of the
    median margin count as that, so that a class which the classifier confuses cannot reach infinity.
    """
    size = np.array([np.inf if s is None else max(s, 1e-9) for s in sizes], dtype=np.float64)
    margin = np.asarray(margins, dtype=np.float64)
    floor = max(0.1 * float(np.median(margin)) if margin.size else 0.0, 1e-6)
    statistics: Array = np.maximum(margin, floor) ** margin_power / size
    return statistics


def anomaly_scores(statistics: Sequence[float] | Array) -> Array:
    """(statistic - median) / MAD for each, signed, without the factor 1.4826: float64 [n].

    If more than half the statistics coincide, the MAD is 0 and would call any deviation infinite; it is never taken
    for less than a hundredth of the median. If all coincide every score is 0. Of two pairs none can score more than 1,
    so two classes never give a detection.
    """
    values = np.asarray(statistics, dtype=np.float64)
    if values.size == 0:
        return values
    centre = float(np.median(values))
    spread = max(float(np.median(np.abs(values - centre))), 0.01 * abs(centre))
    return np.zeros_like(values) if spread == 0 else (values - centre) / spread


def judge(
    pairs: Sequence[tuple[int, int]],
    scores: Array,
    thresholds: Thresholds,
    linked: Collection[tuple[int, int]] = (),
) -> NDArray[np.bool_]:
    """Which (source, target) pairs are detected, bool [n]: alone, linked to one that is, or as members of a target."""
    target = np.array([t for _, t in pairs])
    detected = np.asarray(scores > thresholds.pair)
    detected |= np.array([p in linked for p in pairs], dtype=bool) & (scores > thresholds.linked)
    for t in np.unique(target):
        into = target == t
        if into.sum() >= 2 and np.median(scores[into]) > thresholds.target:
            detected |= into & (scores > thresholds.member)
    return detected
