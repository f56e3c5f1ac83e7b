"""Detectors of other papers, to compare with: one file each, all called alike.

They say which classes stand out; only ``untrojan.scan`` goes on to pairs, triggers and one calibrated p-value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from untrojan.classifier import Classifier


@dataclass(frozen=True)
class Detection:
    """What a detector says of a classifier.

    statistics: one number per class, in the detector's own unit; score: how suspicious the classifier is, larger is
    more; flagged: whether that is beyond the threshold of the detector's paper; targets: the classes that are.
    """

    statistics: tuple[float, ...]
    score: float
    flagged: bool
    targets: tuple[int, ...]


Detector = Callable[[Classifier, Tensor, Tensor, int], Detection]
"""(classifier, images float [N, C, H, W] in [0, 1], labels int64 [N], seed) to a Detection."""


def detectors() -> dict[str, Detector]:
    """Every detector by its name."""
    from untrojan.detection.max_margin import max_margin
    from untrojan.detection.neural_cleanse import neural_cleanse

    return {"neural-cleanse": neural_cleanse, "mm-bd": max_margin}
