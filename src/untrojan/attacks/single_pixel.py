"""Single pixel: one pixel made brighter, at a random fixed place."""

from __future__ import annotations

from typing import ClassVar

import torch

from untrojan.attacks.base import Attack
from untrojan.errors import UsageError
from untrojan.triggers import AdditiveTrigger


class SinglePixel(Attack):
    """``amplitude``/255 added to one pixel, in all channels, at the same random place in all images.

    Source: Tran, Li, Madry, "Spectral signatures in backdoor attacks", NeurIPS 2018; the BNA paper's is +75/255.
    """

    name = "single-pixel"
    default_count: ClassVar = {"a2o": 100, "a2a": 800, "s2t": 100}

    def __init__(self, *, amplitude: float = 75.0):
        if not 0 < amplitude <= 255:
            raise UsageError(f"single-pixel: amplitude is in units of 1/255, in (0, 255], got {amplitude}")
        self.amplitude = amplitude

    def make_trigger(self, image_shape: tuple[int, int, int], generator: torch.Generator) -> AdditiveTrigger:
        channels, height, width = image_shape
        place = int(torch.randint(height * width, (1,), generator=generator))
        delta = torch.zeros(channels, height, width)
        delta[:, place // width, place % width] = self.amplitude / 255
        return AdditiveTrigger(delta)
