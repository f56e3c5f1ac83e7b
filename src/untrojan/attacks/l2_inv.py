"""l2 inv: the perturbation of a given L2 norm that excites a clean network most."""

from __future__ import annotations

import torch
from torch import Tensor

from untrojan.attacks.optimised import OptimisedAttack
from untrojan.errors import UsageError
from untrojan.triggers import AdditiveTrigger


class L2Inv(OptimisedAttack):
    """An additive trigger whose L2 norm, in [0, 1] image units, is at most ``radius``.

    Source: see ``OptimisedAttack``. The radius of the BNA paper is not known; 1.5 is 7/255 a value on a 32x32 image.
    """

    name = "l2-inv"

    def __init__(self, *, radius: float = 1.5):
        if not 0 < radius <= 50:
            raise UsageError(f"l2-inv: radius is an L2 norm in [0, 1] image units, in (0, 50], got {radius}")
        self.radius = radius

    def make_trigger(self, image_shape: tuple[int, int, int], generator: torch.Generator) -> AdditiveTrigger:
        return AdditiveTrigger(self.finished(torch.randn(image_shape, generator=generator) * 0.05))

    def project(self, delta: Tensor, progress: float) -> Tensor:
        del progress
        bounded = delta.clamp(-1, 1)
        shrunk: Tensor = bounded * (self.radius / bounded.norm().clamp_min(1e-12)).clamp_max(1)
        return shrunk
