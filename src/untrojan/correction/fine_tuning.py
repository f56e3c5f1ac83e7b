"""Fine-tuning: the network is trained on on the clean images, and forgets what these do not ask for."""

from __future__ import annotations

import torch
from torch import Tensor

from untrojan.classifier.classifier import Classifier
from untrojan.correction.tuning import Lesson, Schedule, Tuning, train_student
from untrojan.progress import Progress


class FineTuning(Tuning):
    """Every weight, with BackdoorBench's settings: SGD at 0.01 under a cosine, 100 epochs; it chooses nothing.

    The baseline of the others, and a part of most of them.
    """

    name = "ft"

    def __init__(self, *, epochs: int = 100, batch_size: int = 64, learning_rate: float = 0.01, shift: int = 4):
        self.schedule = Schedule(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, shift=shift)

    def tune(
        self, student: Classifier, victim: Classifier, lesson: Lesson, *, generator: torch.Generator, progress: Progress
    ) -> dict[str, Tensor] | None:
        train_student(student, lesson, self.schedule, generator=generator, progress=progress, description="fine-tuning")
        return None
