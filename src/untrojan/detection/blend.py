"""Blends: the same share of every pixel gives way to a picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from untrojan.detection.family import TriggerFamily
from untrojan.triggers import BlendTrigger, Trigger


class BlendFamily(TriggerFamily):
    """x becomes (1 - r) x + r p, with r small.

    This is what a blended attack does (Chen et al., arXiv 1712.05526); the search is ours. Ratio and picture are
    sigmoids of free parameters. No pixel pays for another: each goes as far as the ratio lets it, so the picture's
    slope is steep, and where the search ends hardly depends on where it began.
    """

    kind = "blend"
    for_many = False
    learning_rate = 0.05
    initial_cost = 1.0
    raise_cost, lower_cost = 1.3, 1 / 1.5
    slope, ratio_slope = 40.0, 3.0
    start_scale, start_ratio = 0.5, -1.0

    def start(self, count: int, image_shape: tuple[int, int, int], generator: torch.Generator) -> list[Tensor]:
        pattern = torch.randn(count, *image_shape, generator=generator) * self.start_scale / self.slope
        return [torch.full((count, 1), self.start_ratio / self.ratio_slope), pattern]

    def stamp(self, parameters: Sequence[Tensor], images: Tensor) -> Tensor:
        ratio, pattern = self._blend(parameters)
        return images + ratio.view(-1, 1, 1, 1, 1) * (pattern.unsqueeze(1) - images)

    def size(self, parameters: Sequence[Tensor]) -> Tensor:
        return torch.sigmoid(parameters[0] * self.ratio_slope)[:, 0]

    def parameters(self, trigger: Trigger) -> list[Tensor]:
        tensors = trigger.tensors()
        return [
            torch.logit(tensors["ratio"].cpu(), eps=0.001) / self.ratio_slope,
            torch.logit(tensors["pattern"].cpu(), eps=0.02) / self.slope,
        ]

    def strengthened(self, trigger: Trigger) -> BlendTrigger:
        tensors = trigger.tensors()
        return BlendTrigger((2 * tensors["ratio"]).clamp(0, 1), tensors["pattern"])

    def moved(self, trigger: Trigger, mirror: bool, down: int, right: int) -> BlendTrigger:
        tensors = trigger.tensors()
        pattern = tensors["pattern"].flip(-1) if mirror else tensors["pattern"]
        return BlendTrigger(tensors["ratio"], pattern.roll((down, right), (-2, -1)))

    def trigger(self, parameters: Sequence[Tensor]) -> BlendTrigger:
        return BlendTrigger(*self._blend(parameters))

    def _blend(self, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(parameters[0] * self.ratio_slope), torch.sigmoid(parameters[1] * self.slope)
