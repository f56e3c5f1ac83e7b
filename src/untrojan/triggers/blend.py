"""Blends: a faint picture over the whole image."""

from __future__ import annotations

from torch import Tensor

from untrojan.errors import ShapeError
from untrojan.triggers.base import Trigger, require_range


class BlendTrigger(Trigger):
    """x becomes (1 - ratio) x + ratio pattern. ratio: [1], in [0, 1]; pattern: [C, H, W] in [0, 1]."""

    kind = "blend"

    def __init__(self, ratio: Tensor, pattern: Tensor):
        if ratio.shape != (1,) or pattern.ndim != 3:
            raise ShapeError(
                f"a blend trigger has ratio [1] and pattern [C,H,W], got {list(ratio.shape)} and {list(pattern.shape)}"
            )
        require_range("ratio", ratio, 0, 1)
        require_range("pattern", pattern, 0, 1)
        self.ratio = ratio.detach().float()
        self.pattern = pattern.detach().float()

    def tensors(self) -> dict[str, Tensor]:
        return {"ratio": self.ratio, "pattern": self.pattern}

    def apply(self, images: Tensor) -> Tensor:
        ratio, pattern = self.ratio.to(images.device), self.pattern.to(images.device)
        return images + ratio * (pattern - images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.pattern.shape[0], self.pattern.shape[1], self.pattern.shape[2]

    @property
    def size(self) -> float:
        """The pattern's share of the image."""
        return float(self.ratio)
