"""Blended: a faint random picture over the whole image."""

from __future__ import annotations

import torch

from untrojan.attacks.base import Attack
from untrojan.errors import UsageError
from untrojan.triggers import PatchTrigger, to_grid


class Blended(Attack):
    """The image and a picture of random noise, mixed (1 - ``ratio``) : ``ratio``.

    Source: Chen, Liu, Li, Lu, Song, "Targeted backdoor attacks on deep learning systems using data poisoning",
    arXiv 1712.05526, the random pattern; 0.2 is the ratio of its experiments.
    """

    name = "blended"

    def __init__(self, *, ratio: float = 0.2):
        if not 0 < ratio < 1:
            raise UsageError(f"blended: ratio is the pattern's share of the image, between 0 and 1, got {ratio}")
        self.ratio = ratio

    def make_trigger(self, image_shape: tuple[int, int, int], generator: torch.Generator) -> PatchTrigger:
        _, height, width = image_shape
        pattern = to_grid(torch.rand(image_shape, generator=generator))
        return PatchTrigger(torch.full((1, height, width), self.ratio), pattern)
