"""The anomaly score of the paper: how far a statistic lies from the others. A pure statistic, no networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


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
