"""Warps: a smooth flow field, small where it hardly moves a pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from untrojan.detection.family import TriggerFamily
from untrojan.triggers import Trigger, WarpTrigger


class WarpFamily(TriggerFamily):
    """x is sampled at other places, with the mean distance that a pixel moves small.

    The flow is given on a coarse grid of ``cells`` x ``cells`` points and interpolated by bicubic splines, which is
    how the attack builds its own (Nguyen & Tran, "WaNet", ICLR 2021); the search is ours.
    """

    kind = "warp"
    complete = False
    learning_rate = 0.01
    initial_cost = 0.5
    raise_cost, lower_cost = 1.3, 1 / 1.5
    cells = 8
    start_scale = 0.005

    def __init__(self) -> None:
        self.pixels = (1, 1)

    def start(self, count: int, image_shape: tuple[int, int, int], generator: torch.Generator) -> list[Tensor]:
        self.pixels = image_shape[1:]
        height, width = (min(self.cells, side) for side in self.pixels)
        return [torch.randn(count, 2, height, width, generator=generator) * self.start_scale]

    def stamp(self, parameters: Sequence[Tensor], images: Tensor) -> Tensor:
        count, drawn, channels, height, width = images.shape
        grid = _still(height, width, images.device) + self._flow(parameters[0]).permute(0, 2, 3, 1)
        # All images of a problem share its grid, so they pass as channels of one image.
        stacked = images.reshape(count, drawn * channels, height, width)
        warped = functional.grid_sample(stacked, grid.clamp(-1, 1).to(images.dtype), align_corners=True)
        return warped.view(images.shape)

    def size(self, parameters: Sequence[Tensor]) -> Tensor:
        flow = self._flow(parameters[0])
        scale = torch.tensor([(self.pixels[1] - 1) / 2, (self.pixels[0] - 1) / 2], device=flow.device)
        squares = (flow * scale.view(1, 2, 1, 1)).square().sum(1)
        return (squares + 1e-12).sqrt().mean((1, 2))  # the root has no gradient at 0

    def parameters(self, trigger: Trigger) -> list[Tensor]:
        grid = trigger.tensors()["grid"].cpu()
        self.pixels = (grid.shape[0], grid.shape[1])
        flow = (grid - _still(*self.pixels, grid.device)).permute(2, 0, 1)[None]
        cells = [min(self.cells, side) for side in self.pixels]
        return [functional.interpolate(flow, cells, mode="bilinear", align_corners=True)[0]]

    def strengthened(self, trigger: Trigger) -> WarpTrigger:
        grid = trigger.tensors()["grid"]
        still = _still(grid.shape[0], grid.shape[1], grid.device)
        return WarpTrigger((2 * grid - still).clamp(-1, 1))

    def moved(self, trigger: Trigger, mirror: bool, down: int, right: int) -> WarpTrigger:
        grid = trigger.tensors()["grid"]
        still = _still(grid.shape[0], grid.shape[1], grid.device)
        flow = grid - still
        if mirror:  # what went to the left goes to the right
            flow = flow.flip(1) * torch.tensor([-1.0, 1.0], device=flow.device)
        return WarpTrigger((still + flow.roll((down, right), (0, 1))).clamp(-1, 1))

    def trigger(self, parameters: Sequence[Tensor]) -> WarpTrigger:
        flow = self._flow(parameters[0][None])[0].permute(1, 2, 0)
        return WarpTrigger((_still(*self.pixels, flow.device) + flow).clamp(-1, 1))

    def _flow(self, cells: Tensor) -> Tensor:
        """[P, 2, H, W], (x, y) in the units of ``grid_sample``."""
        return functional.interpolate(cells, self.pixels, mode="bicubic", align_corners=True)


def _still(height: int, width: int, device: torch.device) -> Tensor:
    """[H, W, 2], the grid that moves nothing."""
    rows, columns = (torch.linspace(-1, 1, side, device=device) for side in (height, width))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1)
