"""What NAD and ARGD share: the victim's own fine-tuned copy teaches the victim where to look."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.corrected import independent
from untrojan.correction.attention import STAGES, looking, stages
from untrojan.correction.tuning import Lesson, Schedule, Tuning, train_student
from untrojan.progress import Progress


class Distillation(Tuning):
    """A teacher, the victim fine-tuned for some epochs, and a student, the victim again.

    The student's loss is the cross-entropy and ``distance``, of its stages' feature maps from the teacher's.
    """

    def __init__(self, *, teacher_epochs: int, epochs: int, batch_size: int, learning_rate: float, shift: int):
        self.schedule = Schedule(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, shift=shift)
        self.teaching = replace(self.schedule, epochs=teacher_epochs)

    @property
    def stages(self) -> int:
        """How many stages are compared, the last ones."""
        return STAGES

    @abstractmethod
    def distance(self, seen: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """Of the student's feature maps from the teacher's: float [N, C, H, W] for each stage, to a scalar."""

    def tune(
        self, student: Classifier, victim: Classifier, lesson: Lesson, *, generator: torch.Generator, progress: Progress
    ) -> dict[str, Tensor] | None:
        names = stages(victim, lesson.images, self.stages)
        teacher = independent(victim)
        train_student(
            teacher, lesson, self.teaching, generator=generator, progress=progress, description="training the teacher"
        )
        with looking(student, names) as seen, looking(teacher, names) as shown:

            def loss(images: Tensor, labels: Tensor) -> Tensor:
                with torch.no_grad():
                    teacher(images)
                own = functional.cross_entropy(student(images), labels)
                return own + self.distance([seen[name] for name in names], [shown[name] for name in names])

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
