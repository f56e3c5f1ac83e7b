"""Which trigger sizes are anomalously small: pure statistics, no networks.

The statistic of a pair is the reciprocal of its trigger's size (BNA, Apdx C); where no trigger was found it is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """When a score is an anomaly.

    pair: a single pair on its own (the paper's 7). target: the median score of all pairs into one target, which an
    all-to-one attack raises together. member: a pair that belongs to a target so found.
    """

    pair: float = 7.0
    target: float = 4.0
    member: float = 3.0


def anomaly_scores(statistics: Sequence[float] | Array) -> Array:
    """(statistic - median) / MAD for each, signed, without the factor 1.4826: float64 [n].

    If more than half the statistics coincide, the MAD is 0 and would call any deviation infinite; it is never taken
    for less than a hundredth of the median. If all coincide every score is 0. Of two pairs
    none can score more than 1, so two classes never give a detection.
    """
    values = np.asarray(statistics, dtype=np.float64)
    if values.size == 0:
        return values
    centre = float(np.median(values))
    spread = max(float(np.median(np.abs(values - centre))), 0.01 * abs(centre))
    return np.zeros_like(values) if spread == 0 else (values - centre) / spread


def judge(
    pairs: Sequence[tuple[int, int]], sizes: Sequence[float | None], thresholds: Thresholds
) -> tuple[list[float | None], list[bool]]:
    """Score of each pair, None where no trigger was found, and whether it is detected.

    pairs: (source, target); sizes: norm of the smallest trigger, None if none reached the success level.
    """
    statistics = np.array([0.0 if size is None else 1 / max(size, 1e-9) for size in sizes])
    scores = anomaly_scores(statistics)
    target = np.array([t for _, t in pairs])
    detected = scores > thresholds.pair
    for t in np.unique(target):
        into = target == t
        if into.sum() >= 3 and np.median(scores[into]) > thresholds.target:
            detected |= into & (scores > thresholds.member)
    plain = [None if size is None else float(score) for size, score in zip(sizes, scores, strict=True)]
    return plain, [bool(hit) for hit in detected]
