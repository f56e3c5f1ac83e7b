"""Warps: every pixel is taken from another place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from untrojan.errors import ShapeError
from untrojan.triggers.base import Trigger, require_range


class WarpTrigger(Trigger):
    """x is sampled at other places. grid: [H, W, 2] in [-1, 1], (x, y) as ``grid_sample`` with align_corners takes it.

    It suits images with any number of channels.
    """

    kind = "warp"

    def __init__(self, grid: Tensor):
        if grid.ndim != 3 or grid.shape[2] != 2:
            raise ShapeError(f"a warp trigger has grid [H,W,2], got {list(grid.shape)}")
        require_range("grid", grid, -1, 1)
        self.grid = grid.detach().to(torch.float32)

    def tensors(self) -> dict[str, Tensor]:
        return {"grid": self.grid}

    def apply(self, images: Tensor) -> Tensor:
        grid = self.grid.to(images.device).expand(len(images), -1, -1, -1)
        return functional.grid_sample(images.float(), grid, mode="bilinear", align_corners=True).to(images.dtype)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 1, self.grid.shape[0], self.grid.shape[1]

    @property
    def size(self) -> float:
        """Mean distance that a pixel is moved, in pixels."""
        height, width = self.grid.shape[:2]
        still = torch.stack(torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"))
        moved = (self.grid.cpu() - still.flip(0).permute(1, 2, 0)) * torch.tensor([width - 1, height - 1]) / 2
        return float(moved.norm(dim=2).mean())
