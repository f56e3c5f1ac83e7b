"""VGG-16 with batch normalisation (Simonyan, Zisserman, ICLR 2015), for small images: one linear layer at the end."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from untrojan.victims.precision import full_precision

STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""Width, as a multiple of the first layer's, and number of convolutions between two poolings."""


class VGG(nn.Module):
    """Images [N, channels, H, W] to logits [N, classes]; width 64 is the original's."""

    def __init__(self, *, width: int = 64, classes: int = 10, channels: int = 3):
        super().__init__()
        inputs = channels
        self.stages: list[list[str]] = []
        for stage, (factor, count) in enumerate(STAGES, 1):
            names = [f"{stage}_{number}" for number in range(1, count + 1)]
            for name in names:
                self.add_module(f"conv{name}", nn.Conv2d(inputs, factor * width, 3, 1, 1, bias=False))
                self.add_module(f"bn{name}", nn.BatchNorm2d(factor * width))
                inputs = factor * width
            self.stages.append(names)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            for name in stage:
                if name == "1_1":
                    with full_precision(x):
                        x = self._layer(name, x.float())
                else:
                    x = self._layer(name, x)
            x = functional.max_pool2d(x, 2, ceil_mode=True)
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits

    def _layer(self, name: str, x: Tensor) -> Tensor:
        return torch.relu(self.get_submodule(f"bn{name}")(self.get_submodule(f"conv{name}")(x)))


def vgg16_bn(*, width: int = 64, classes: int = 10, channels: int = 3) -> VGG:
    """VGG-16-BN with ``width`` channels in its first stage."""
    return VGG(width=width, classes=classes, channels=channels)
