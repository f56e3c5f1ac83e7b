"""PreActResNet-18 for small images (He et al., "Identity mappings in deep residual networks", ECCV 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from untrojan.victims.precision import full_precision


class PreActBlock(nn.Module):
    """Normalise, rectify, convolve, twice; the shortcut starts after the first rectification."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(y)
        sum_: Tensor = self.conv2(torch.relu(self.bn2(self.conv1(y)))) + kept
        return sum_


class PreActResNet(nn.Module):
    """Images [N, channels, H, W] to logits [N, classes]."""

    def __init__(self, *, width: int = 64, classes: int = 10, channels: int = 3):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        inputs, blocks = width, []
        for factor, stride in ((1, 1), (1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (8, 2), (8, 1)):
            blocks.append(PreActBlock(inputs, factor * width, stride))
            inputs = factor * width
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(inputs)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x):
            x = self.conv1(x.float())
        x = torch.relu(self.bn(self.blocks(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def preact_resnet18(*, width: int = 64, classes: int = 10, channels: int = 3) -> PreActResNet:
    """PreActResNet-18 with ``width`` channels in its first stage."""
    return PreActResNet(width=width, classes=classes, channels=channels)
