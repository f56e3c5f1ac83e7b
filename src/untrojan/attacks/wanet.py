"""WaNet: a smooth warp of the image, too small to see."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from untrojan.attacks.base import Attack
from untrojan.errors import UsageError
from untrojan.triggers import Trigger, WarpTrigger, to_grid


class WaNet(Attack):
    """Every image warped by the same smooth random field: ``control`` x ``control`` random shifts, interpolated.

    strength: the mean shift of a control point along one axis, in half pixels. noise: for each poisoned image so many
    more are added that are warped by a field with random noise on top and keep their label, so that the network learns
    this field and no other ("noise mode").

    Source: Nguyen, Tran, "WaNet: imperceptible warping-based backdoor attack", ICLR 2021 (k = 4, s = 0.5, and two
    noise images for each poisoned one).
    """

    name = "wanet"
    default_count: ClassVar = {"a2o": 900, "a2a": 1500, "s2t": 900}

    def __init__(self, *, control: int = 4, strength: float = 0.5, noise: float = 2.0):
        if control < 2 or not 0 < strength <= 8 or not 0 <= noise <= 10:
            raise UsageError(
                "wanet: control is 2 or more, strength in (0, 8], noise in [0, 10]; "
                f"got {control}, {strength} and {noise}"
            )
        self.control, self.strength, self.noise = control, strength, noise

    def make_trigger(self, image_shape: tuple[int, int, int], generator: torch.Generator) -> WarpTrigger:
        _, height, width = image_shape
        shifts = torch.rand(1, 2, self.control, self.control, generator=generator) * 2 - 1
        shifts = shifts / shifts.abs().mean()
        field = functional.interpolate(shifts, size=(height, width), mode="bicubic", align_corners=True)[0]
        extent = torch.tensor([width, height], dtype=torch.float32)
        grid = identity_grid(height, width) + self.strength * field.permute(1, 2, 0) / extent
        return WarpTrigger(grid.clamp(-1, 1))

    def covers(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        trigger: Trigger,
        poisoned: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """The noise mode: other images, each warped by the trigger's field plus noise of its own."""
        others = torch.ones(len(images), dtype=torch.bool)
        others[poisoned] = False
        left = others.nonzero().flatten()
        index = left[torch.randperm(len(left), generator=generator)[: round(self.noise * len(poisoned))]]
        height, width = images.shape[2:]
        grid = trigger.tensors()["grid"]
        extent = torch.tensor([width, height], dtype=torch.float32)
        warped = []
        for batch in index.split(1024):
            noise = torch.rand(len(batch), height, width, 2, generator=generator) * 2 - 1
            grids = (grid + noise / extent).clamp(-1, 1)
            moved = functional.grid_sample(images[batch].float() / 255, grids, mode="bilinear", align_corners=True)
            warped.append((to_grid(moved) * 255).round().to(torch.uint8))
        return torch.cat(warped) if warped else images[:0], labels[index]


def identity_grid(height: int, width: int) -> Tensor:
    """The grid [H, W, 2] of ``grid_sample`` that leaves an image as it is: x, then y, in [-1, 1]."""
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    return torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], dim=2)
