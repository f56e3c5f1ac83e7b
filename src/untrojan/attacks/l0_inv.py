"""l0 inv: the few pixels that excite a clean network most."""

from __future__ import annotations

import torch
from torch import Tensor

from untrojan.attacks.optimised import OptimisedAttack
from untrojan.errors import UsageError
from untrojan.triggers import AdditiveTrigger


class L0Inv(OptimisedAttack):
    """An additive trigger on at most ``pixels`` pixels, each value changed by at most ``amplitude``/255.

    The search starts with all pixels and drops the weakest until ``pixels`` are left.
    Source: see ``OptimisedAttack``. The number of pixels of the BNA paper is not known.
    """

    name = "l0-inv"

    def __init__(self, *, pixels: int = 10, amplitude: float = 100.0):
        if pixels < 1 or not 0 < amplitude <= 255:
            raise UsageError(
                f"l0-inv: pixels is at least 1, amplitude in units of 1/255, in (0, 255]; got {pixels} and {amplitude}"
            )
        self.pixels, self.amplitude = pixels, amplitude

    def make_trigger(self, image_shape: tuple[int, int, int], generator: torch.Generator) -> AdditiveTrigger:
        places = image_shape[1] * image_shape[2]
        if self.pixels > places:
            raise UsageError(f"l0-inv: {self.pixels} pixels, and the images have {places}; take fewer")
        return AdditiveTrigger(self.finished(torch.randn(image_shape, generator=generator) * self.amplitude / 255))

    def project(self, delta: Tensor, progress: float) -> Tensor:
        places = delta.shape[1] * delta.shape[2]
        # Half the search for pruning, at a geometric pace; the other half for the values that are left.
        share = (self.pixels / places) ** min(1.0, 2 * progress)
        kept = max(min(self.pixels, places), round(places * share))
        strength = delta.square().sum(0).flatten()
        mask = torch.zeros_like(strength)
        mask[strength.topk(kept).indices] = 1
        limit = self.amplitude / 255
        return delta.clamp(-limit, limit) * mask.view(delta.shape[1:])
