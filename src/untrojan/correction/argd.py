"""Attention relation graph distillation (Xia et al., IJCAI 2022): NAD, and how the stages' attentions relate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.corrected import independent
from untrojan.correction.attention import attention, looking, stages
from untrojan.correction.tuning import Lesson, Schedule, Tuning, train_student
from untrojan.errors import UsageError
from untrojan.progress import Progress


class ARGD(Tuning):
    """A graph for each image: the stages' attention maps are its nodes, their distances its edges.

    The student, the victim again, is taught the graph of the teacher, the victim fine-tuned: three squared distances
    are added to the cross-entropy, of the nodes, of the edges and of the graphs' embeddings. The paper embeds a graph
    by a learned layer; here it is the mean of the nodes on one grid, which has nothing to learn. It chooses nothing.
    """

    name = "argd"

    def __init__(
        self,
        *,
        teacher_epochs: int = 10,
        epochs: int = 10,
        batch_size: int = 64,
        learning_rate: float = 0.01,
        node: float = 1000.0,
        edge: float = 1.0,
        embedding: float = 1000.0,
        power: float = 2.0,
        shift: int = 4,
    ):
        if min(node, edge, embedding) < 0 or not power > 0:
            raise UsageError("argd: the weights node, edge and embedding are >= 0, and power > 0")
        self.node, self.edge, self.embedding, self.power = node, edge, embedding, power
        self.teaching = Schedule(epochs=teacher_epochs, batch_size=batch_size, learning_rate=learning_rate, shift=shift)
        self.schedule = Schedule(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, shift=shift)

    def tune(
        self, student: Classifier, victim: Classifier, lesson: Lesson, *, generator: torch.Generator, progress: Progress
    ) -> dict[str, Tensor] | None:
        names = stages(victim, lesson.images)
        teacher = independent(victim)
        train_student(
            teacher, lesson, self.teaching, generator=generator, progress=progress, description="training the teacher"
        )
        with looking(student, names) as seen, looking(teacher, names) as shown:

            def loss(images: Tensor, labels: Tensor) -> Tensor:
                with torch.no_grad():
                    teacher(images)
                value = functional.cross_entropy(student(images), labels)
                nodes, wanted = self._nodes(seen, names), self._nodes(shown, names)
                value = value + self.node * sum(
                    ((a - b.detach()).pow(2).mean() for a, b in zip(nodes, wanted, strict=True)), value.new_zeros(())
                )
                (edges, centre), (right_edges, right_centre) = relations(nodes), relations(wanted)
                value = value + self.edge * (edges - right_edges.detach()).pow(2).mean()
                return value + self.embedding * (centre - right_centre.detach()).pow(2).mean()

            train_student(
                student,
                lesson,
                self.schedule,
                generator=generator,
                progress=progress,
                description="distilling attention graphs",
                loss=loss,
            )
        return None

    def _nodes(self, features: Mapping[str, Tensor], names: Sequence[str]) -> list[Tensor]:
        """Each stage's attention as a map of length 1: float [N, 1, H, W]."""
        shapes = [features[name].shape for name in names]
        flat = [attention(features[name], self.power) for name in names]
        return [f.view(s[0], 1, s[2], s[3]) for f, s in zip(flat, shapes, strict=True)]


def relations(nodes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Edges float [N, S, S], the distances of S maps on one grid in units of their mean, and the mean map [N, H * W].

    nodes: float [N, 1, H_s, W_s]; the grid is the smallest of them.
    """
    size = min((node.shape[2], node.shape[3]) for node in nodes)
    maps = [functional.normalize(functional.adaptive_avg_pool2d(n, size).flatten(1), dim=1) for n in nodes]
    grid = torch.stack(maps, 1)
    edges = (grid[:, :, None] - grid[:, None]).pow(2).sum(3).add(1e-12).sqrt()
    return edges / edges.mean((1, 2), keepdim=True).clamp_min(1e-6), grid.mean(1)
