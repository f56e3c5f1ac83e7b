"""What a correction is: something that makes a classifier answer triggered images with their true class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from untrojan.classifier.classifier import Classifier
from untrojan.progress import Progress
from untrojan.triggers import Trigger


@dataclass(frozen=True)
class Task:
    """One target class and what is known about it.

    sources: float [N, C, H, W] in [0, 1], clean images of the detected source classes; own: clean images of the target
    class, possibly none; surrogates: triggers that stand in for the attacker's.
    """

    target: int
    sources: Tensor
    own: Tensor
    surrogates: Sequence[Trigger]


class Correction(ABC):
    """Base of every correction. Constructors take keyword-only hyper-parameters; model and data come at call time."""

    name: ClassVar[str]

    @abstractmethod
    def fit(
        self, classifier: Classifier, task: Task, *, generator: torch.Generator, progress: Progress
    ) -> dict[str, Tensor]:
        """One row of Theta for the target: the tensors of ``CorrectedClassifier.theta`` with R = 1.

        The classifier is in evaluation mode with frozen parameters, and stays as it is.
        """
