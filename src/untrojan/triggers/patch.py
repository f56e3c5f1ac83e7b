"""Patches: part of the image is replaced."""

from __future__ import annotations

import torch
from torch import Tensor

from untrojan.errors import ShapeError
from untrojan.triggers.base import Trigger, require_range


class PatchTrigger(Trigger):
    """x becomes (1 - mask) x + mask pattern. mask: [1, H, W] in [0, 1]; pattern: [C, H, W] in [0, 1]."""

    kind = "patch"

    def __init__(self, mask: Tensor, pattern: Tensor):
        if mask.ndim != 3 or mask.shape[0] != 1 or pattern.ndim != 3 or pattern.shape[1:] != mask.shape[1:]:
            raise ShapeError(
                "a patch trigger has mask [1,H,W] and pattern [C,H,W], "
                f"got {list(mask.shape)} and {list(pattern.shape)}"
            )
        require_range("mask", mask, 0, 1)
        require_range("pattern", pattern, 0, 1)
        self.mask = mask.detach().to(torch.float32)
        self.pattern = pattern.detach().to(torch.float32)

    def tensors(self) -> dict[str, Tensor]:
        return {"mask": self.mask, "pattern": self.pattern}

    def apply(self, images: Tensor) -> Tensor:
        mask, pattern = self.mask.to(images.device), self.pattern.to(images.device)
        return images + mask * (pattern - images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.pattern.shape[0], self.pattern.shape[1], self.pattern.shape[2]

    @property
    def size(self) -> float:
        """L1 norm of the mask, in pixels."""
        return float(self.mask.sum())
