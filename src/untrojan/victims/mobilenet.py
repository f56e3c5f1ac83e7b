"""MobileNet (Howard et al., arXiv 1704.04861) for small images: the first convolution does not stride."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from untrojan.victims.precision import full_precision

BLOCKS = ((2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), *((16, 1),) * 5, (32, 2), (32, 1))
"""Width, as a multiple of the first layer's, and stride of each depthwise separable block."""


class Separable(nn.Module):
    """A 3x3 convolution within each channel, then a 1x1 convolution across them."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class MobileNet(nn.Module):
    """Images [N, channels, H, W] to logits [N, classes]; width 32 is the original's."""

    def __init__(self, *, width: int = 32, classes: int = 10, channels: int = 3):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inputs, blocks = width, []
        for factor, stride in BLOCKS:
            blocks.append(Separable(inputs, factor * width, stride))
            inputs = factor * width
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x):
            x = torch.relu(self.bn1(self.conv1(x.float())))
        logits: Tensor = self.linear(self.blocks(x).mean((2, 3)))
        return logits


def mobilenet(*, width: int = 32, classes: int = 10, channels: int = 3) -> MobileNet:
    """MobileNet with ``width`` channels in its first layer."""
    return MobileNet(width=width, classes=classes, channels=channels)
