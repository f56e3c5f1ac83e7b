"""Attention relation graph distillation (Xia et al., IJCAI 2022): NAD, and how the stages' attentions relate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from untrojan.correction.attention import attention
from untrojan.correction.distillation import Distillation
from untrojan.errors import UsageError


class ARGD(Distillation):
    """A graph for each image: the stages' attention maps are its nodes, their distances its edges.

    Three squared distances of the student's graph from the teacher's are added to the cross-entropy: of the nodes, of
    the edges and of the graphs' embeddings. The paper embeds a graph by a learned layer; here it is the mean of the
    nodes on one grid, which has nothing to learn. It chooses nothing.
    """

    name = "argd"

    def __init__(
        self,
        *,
        teacher_epochs: int = 10,
        epochs: int = 10,
        batch_size: int = 64,
        learning_rate: float = 0.02,
        node: float = 1000.0,
        edge: float = 1.0,
        embedding: float = 1000.0,
        power: float = 2.0,
        shift: int = 4,
    ):
        super().__init__(
            teacher_epochs=teacher_epochs,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            shift=shift,
        )
        if min(node, edge, embedding) < 0 or not power > 0:
            raise UsageError("argd: the weights node, edge and embedding are >= 0, and power > 0")
        self.node, self.edge, self.embedding, self.power = node, edge, embedding, power

    def distance(self, seen: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        nodes, goals = ([as_map(features, self.power) for features in side] for side in (seen, wanted))
        apart = torch.stack([(a - b).pow(2).mean() for a, b in zip(nodes, goals, strict=True)]).sum()
        (edges, centre), (right_edges, right_centre) = relations(nodes), relations(goals)
        return (
            self.node * apart
            + self.edge * (edges - right_edges).pow(2).mean()
            + self.embedding * (centre - right_centre).pow(2).mean()
        )


def as_map(features: Tensor, power: float) -> Tensor:
    """A stage's attention as a map of length 1: [N, C, H, W] to [N, 1, H, W]."""
    count, _, height, width = features.shape
    return attention(features, power).view(count, 1, height, width)


def relations(nodes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Edges float [N, S, S], the distances of S maps on one grid in units of their mean, and the mean map [N, H * W].

    nodes: float [N, 1, H_s, W_s]; the grid is the smallest of them.
    """
    size = min((node.shape[2], node.shape[3]) for node in nodes)
    maps = [functional.normalize(functional.adaptive_avg_pool2d(n, size).flatten(1), dim=1) for n in nodes]
    grid = torch.stack(maps, 1)
    edges = (grid[:, :, None] - grid[:, None]).pow(2).sum(3).add(1e-12).sqrt()
    return edges / edges.mean((1, 2), keepdim=True).clamp_min(1e-6), grid.mean(1)
