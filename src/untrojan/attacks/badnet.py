"""BadNet: a random patch at a random fixed place."""

from __future__ import annotations

import torch

from untrojan.attacks.base import Attack
from untrojan.errors import UsageError
from untrojan.triggers import PatchTrigger, to_grid


class BadNet(Attack):
    """A ``size`` x ``size`` patch of random colours, at one random place for all images.

    Source: Gu, Dolan-Gavitt, Garg, "BadNets", IEEE Access 2019; the settings are the BNA paper's (3 x 3 on CIFAR-10).
    """

    name = "badnet"

    def __init__(self, *, size: int = 3, row: int | None = None, column: int | None = None):
        if size < 1:
            raise UsageError(f"badnet: size is the side of the patch in pixels, at least 1, got {size}")
        self.size, self.row, self.column = size, row, column

    def make_trigger(self, image_shape: tuple[int, int, int], generator: torch.Generator) -> PatchTrigger:
        channels, height, width = image_shape
        if self.size > min(height, width):
            raise UsageError(f"badnet: a {self.size}x{self.size} patch does not fit into {height}x{width} images")
        row = self._place(self.row, height, generator)
        column = self._place(self.column, width, generator)
        mask = torch.zeros(1, height, width)
        mask[:, row : row + self.size, column : column + self.size] = 1
        pattern = torch.zeros(channels, height, width)
        colours = torch.rand(channels, self.size, self.size, generator=generator)
        pattern[:, row : row + self.size, column : column + self.size] = to_grid(colours)
        return PatchTrigger(mask, pattern)

    def _place(self, given: int | None, extent: int, generator: torch.Generator) -> int:
        last = extent - self.size
        drawn = int(torch.randint(last + 1, (1,), generator=generator))
        if given is None:
            return drawn
        if not 0 <= given <= last:
            raise UsageError(f"badnet: the patch's row and column must lie in 0..{last}, got {given}")
        return given
