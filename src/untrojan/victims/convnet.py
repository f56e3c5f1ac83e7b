"""A small convolutional network with batch normalisation, for digits and other small grey images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from untrojan.victims.precision import full_precision


class ConvNet(nn.Module):
    """Three convolutions with BatchNorm, global pooling over 3x3, one linear layer: [N, C, H, W] to [N, classes]."""

    def __init__(self, *, width: int = 16, classes: int = 10, channels: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, 2, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.linear = nn.Linear(36 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x):
            x = torch.relu(self.bn1(self.conv1(x.float())))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = torch.relu(self.bn3(self.conv3(x)))
        logits: Tensor = self.linear(self.pool(x).flatten(1))
        return logits


def convnet(*, width: int = 16, classes: int = 10, channels: int = 1) -> ConvNet:
    """The small BatchNorm network for digits."""
    return ConvNet(width=width, classes=classes, channels=channels)
