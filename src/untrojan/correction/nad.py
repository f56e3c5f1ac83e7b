"""Neural attention distillation (Li et al., ICLR 2021): the network looks where its own fine-tuned copy looks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.corrected import independent
from untrojan.correction.attention import attention, looking, stages
from untrojan.correction.tuning import Lesson, Schedule, Tuning, train_student
from untrojan.errors import UsageError
from untrojan.progress import Progress


class NAD(Tuning):
    """A teacher, the victim fine-tuned for some epochs, and a student, the victim again, taught its attention.

    Loss: cross-entropy plus, for each of the last three stages, ``betas`` times the squared distance of the normalised
    attention maps of both. Settings: the paper's, 10 epochs each and power 2, betas as in BackdoorBench. It chooses
    nothing.
    """

    name = "nad"

    def __init__(
        self,
        *,
        teacher_epochs: int = 10,
        epochs: int = 10,
        batch_size: int = 64,
        learning_rate: float = 0.01,
        betas: Sequence[float] = (500.0, 1000.0, 1000.0),
        power: float = 2.0,
        shift: int = 4,
    ):
        if not betas or min(betas) < 0 or not power > 0:
            raise UsageError("nad: betas are one weight >= 0 for each stage, and power > 0")
        self.betas, self.power = tuple(betas), power
        self.teaching = Schedule(epochs=teacher_epochs, batch_size=batch_size, learning_rate=learning_rate, shift=shift)
        self.schedule = Schedule(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, shift=shift)

    def tune(
        self, student: Classifier, victim: Classifier, lesson: Lesson, *, generator: torch.Generator, progress: Progress
    ) -> dict[str, Tensor] | None:
        names = stages(victim, lesson.images, len(self.betas))
        betas = self.betas[-len(names) :]
        teacher = independent(victim)
        train_student(
            teacher, lesson, self.teaching, generator=generator, progress=progress, description="training the teacher"
        )
        with looking(student, names) as seen, looking(teacher, names) as shown:

            def loss(images: Tensor, labels: Tensor) -> Tensor:
                with torch.no_grad():
                    teacher(images)
                value = functional.cross_entropy(student(images), labels)
                for beta, name in zip(betas, names, strict=True):
                    maps = attention(seen[name], self.power), attention(shown[name].detach(), self.power)
                    value = value + beta * (maps[0] - maps[1]).pow(2).mean()
                return value

            train_student(
                student,
                lesson,
                self.schedule,
                generator=generator,
                progress=progress,
                description="distilling attention",
                loss=loss,
            )
        return None
