"""Neural attention distillation (Li et al., ICLR 2021): the network looks where its own fine-tuned copy looks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from untrojan.correction.attention import attention
from untrojan.correction.distillation import Distillation
from untrojan.errors import UsageError


class NAD(Distillation):
    """Adds to the cross-entropy, for each of the last stages, ``betas`` times the squared distance of the normalised
    attention maps of student and teacher.

    Settings: the paper's, 10 epochs each and power 2, betas as in BackdoorBench. It chooses nothing.
    """

    name = "nad"

    def __init__(
        self,
        *,
        teacher_epochs: int = 10,
        epochs: int = 10,
        batch_size: int = 64,
        learning_rate: float = 0.02,
        betas: Sequence[float] = (500.0, 1000.0, 1000.0),
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
        if not betas or min(betas) < 0 or not power > 0:
            raise UsageError("nad: betas are one weight >= 0 for each stage, and power > 0")
        self.betas, self.power = tuple(betas), power

    @property
    def stages(self) -> int:
        return len(self.betas)

    def distance(self, seen: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        apart = [
            beta * (attention(one, self.power) - attention(other, self.power)).pow(2).mean()
            for beta, one, other in zip(self.betas[-len(seen) :], seen, wanted, strict=True)
        ]
        return torch.stack(apart).sum()
