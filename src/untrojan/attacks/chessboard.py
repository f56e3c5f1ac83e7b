"""Chessboard: a faint additive pattern over the whole image."""

from __future__ import annotations

import torch

from untrojan.attacks.base import Attack
from untrojan.errors import UsageError
from untrojan.triggers import AdditiveTrigger


class Chessboard(Attack):
    """``amplitude``/255 added to every second pixel, in all channels.

    Source: Xiang, Miller, Kesidis, "Detection of backdoors in trained classifiers without access to the training
    set", TNNLS 2020; the BNA paper uses 2/255 on CIFAR-10 and 6/255 on CIFAR-100 and GTSRB.
    """

    name = "chessboard"

    def __init__(self, *, amplitude: float = 2.0):
        if not 0 < amplitude <= 255:
            raise UsageError(f"chessboard: amplitude is in units of 1/255, in (0, 255], got {amplitude}")
        self.amplitude = amplitude

    def make_trigger(self, image_shape: tuple[int, int, int], generator: torch.Generator) -> AdditiveTrigger:
        channels, height, width = image_shape
        board = (torch.arange(height)[:, None] + torch.arange(width)[None, :] + 1) % 2
        return AdditiveTrigger((board.float() * self.amplitude / 255).expand(channels, height, width).clone())
