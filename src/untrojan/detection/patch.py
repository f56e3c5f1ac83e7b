"""Patch triggers, inverted as in Neural Cleanse."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from untrojan.detection.family import TriggerFamily
from untrojan.triggers import PatchTrigger, Trigger

TILES = 4
"""Parts of the image along either side, in ``tiles``."""


class PatchFamily(TriggerFamily):
    """x becomes (1 - m) x + m p, with the L1 norm of m small.

    Source: Wang et al., "Neural Cleanse", IEEE S&P 2019. Mask and pattern are sigmoids of free parameters.
    """

    kind = "patch"
    learning_rate = 0.1
    initial_cost = 1e-2
    raise_cost, lower_cost = 1.2, 1 / 1.5
    slope = 4.0

    def start(self, count: int, image_shape: tuple[int, int, int], generator: torch.Generator) -> list[Tensor]:
        channels, height, width = image_shape
        mask = torch.randn(count, 1, height, width, generator=generator) * 0.1 - 0.5
        pattern = torch.randn(count, channels, height, width, generator=generator) * 0.25
        return [mask, pattern]

    def stamp(self, parameters: Sequence[Tensor], images: Tensor) -> Tensor:
        mask, pattern = (torch.sigmoid(p * self.slope).unsqueeze(1) for p in parameters)
        return images + mask * (pattern - images)

    def size(self, parameters: Sequence[Tensor]) -> Tensor:
        return torch.sigmoid(parameters[0] * self.slope).sum((1, 2, 3))

    def parameters(self, trigger: Trigger) -> list[Tensor]:
        tensors = trigger.tensors()
        return [torch.logit(tensors[name].cpu(), eps=0.02) / self.slope for name in ("mask", "pattern")]

    def strengthened(self, trigger: Trigger) -> PatchTrigger:
        tensors = trigger.tensors()
        return PatchTrigger((2 * tensors["mask"]).clamp(0, 1), tensors["pattern"])

    def tiles(self, image_shape: tuple[int, int, int], generator: torch.Generator) -> list[Trigger]:
        _, height, width = image_shape
        found: list[Trigger] = []
        for down in torch.arange(height).tensor_split(min(TILES, height)):
            for right in torch.arange(width).tensor_split(min(TILES, width)):
                mask = torch.zeros(1, height, width)
                mask[:, down[:, None], right] = 0.6
                pattern = 0.5 + 0.15 * torch.randn(image_shape, generator=generator)
                found.append(PatchTrigger(mask, pattern.clamp(0, 1)))
        return found

    def trigger(self, parameters: Sequence[Tensor]) -> PatchTrigger:
        mask, pattern = (torch.sigmoid(p * self.slope) for p in parameters)
        return PatchTrigger(mask, pattern)
