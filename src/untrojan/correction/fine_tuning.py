"""Fine-tuning: the network is trained on on the clean images, and forgets what these do not ask for."""

from __future__ import annotations

import torch
from torch import Tensor

from untrojan.classifier.classifier import Classifier
from untrojan.correction.tuning import Lesson, Schedule, Tuning, train_student
from untrojan.progress import Progress


class FineTuning(Tuning):
    """Every weight, by SGD under a cosine; it chooses nothing. The baseline of the others, and a part of most of them.

    BackdoorBench has 0.01 and 100 epochs; at 0.01 a BadNet of the calibration half kept an ASR of 41 % after 30.
    """

    name = "ft"

    def __init__(self, *, epochs: int = 50, batch_size: int = 64, learning_rate: float = 0.03, shift: int = 4):
        self.schedule = Schedule(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, shift=shift)

    def tune(
        self, student: Classifier, victim: Classifier, lesson: Lesson, *, generator: torch.Generator, progress: Progress
    ) -> dict[str, Tensor] | None:
        train_student(student, lesson, self.schedule, generator=generator, progress=progress, description="fine-tuning")
        return None
