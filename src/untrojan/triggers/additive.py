"""Perturbations: something is added to the image."""

from __future__ import annotations

import torch
from torch import Tensor

from untrojan.errors import ShapeError
from untrojan.triggers.base import Trigger, require_range


class AdditiveTrigger(Trigger):
    """x becomes x + delta, clipped. delta: [C, H, W] in [-1, 1]."""

    kind = "additive"

    def __init__(self, delta: Tensor):
        if delta.ndim != 3:
            raise ShapeError(f"an additive trigger has delta [C,H,W], got {list(delta.shape)}")
        require_range("delta", delta, -1, 1)
        self.delta = delta.detach().to(torch.float32)

    def tensors(self) -> dict[str, Tensor]:
        return {"delta": self.delta}

    def apply(self, images: Tensor) -> Tensor:
        return images + self.delta.to(images.device)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.delta.shape[0], self.delta.shape[1], self.delta.shape[2]

    @property
    def size(self) -> float:
        """L2 norm of delta."""
        return float(self.delta.norm())
