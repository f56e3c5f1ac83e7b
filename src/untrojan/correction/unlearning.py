"""Neural Cleanse's unlearning (Wang et al., S&P 2019): the trigger that was found is shown with the true labels."""

from __future__ import annotations

import torch
from torch import Tensor

from untrojan.classifier.classifier import Classifier
from untrojan.correction.tuning import Lesson, Schedule, Tuning, train_student
from untrojan.errors import UsageError
from untrojan.progress import Progress


class Unlearning(Tuning):
    """Fine-tuning in which a share of each batch carries one of the scan's triggers, and keeps its true label.

    The share of a fifth is the paper's; it tunes for one epoch over a tenth of the training images, several thousand.
    Of a few hundred images that is a handful of steps, so there are more epochs here.
    """

    name = "nc"
    needs_trigger = True

    def __init__(
        self,
        *,
        share: float = 0.2,
        epochs: int = 20,
        batch_size: int = 64,
        learning_rate: float = 0.01,
        shift: int = 4,
    ):
        if not 0 < share <= 1:
            raise UsageError(f"nc: share of stamped images is more than 0 and at most 1, got {share}")
        self.share = share
        self.schedule = Schedule(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, shift=shift)

    def tune(
        self, student: Classifier, victim: Classifier, lesson: Lesson, *, generator: torch.Generator, progress: Progress
    ) -> dict[str, Tensor] | None:
        triggers = [lesson.triggers[target] for target in sorted(lesson.triggers)]

        def stamped(images: Tensor) -> Tensor:
            chosen = torch.rand(len(images), generator=generator) < self.share
            which = torch.randint(len(triggers), (len(images),), generator=generator)
            images = images.clone()
            for i, trigger in enumerate(triggers):
                rows = (chosen & (which == i)).nonzero().flatten().to(images.device)
                if len(rows):
                    images[rows] = trigger.apply(images[rows]).clamp(0, 1)
            return images

        train_student(
            student,
            lesson,
            self.schedule,
            generator=generator,
            progress=progress,
            description="unlearning the trigger",
            change=stamped,
        )
        return None
