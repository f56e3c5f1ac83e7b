"""ResNet-18 and -34 for small images (He et al., CVPR 2016), with the key names of the common CIFAR variant."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from untrojan.victims.precision import full_precision


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """Images [N, channels, H, W] to logits [N, classes]; width 64 is the paper's, narrower ones train on a laptop."""

    def __init__(
        self, *, width: int = 64, classes: int = 10, channels: int = 3, blocks: tuple[int, ...] = (2, 2, 2, 2)
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        for i, count in enumerate(blocks):
            outputs = width * 2**i
            stage = [BasicBlock(inputs, outputs, 1 if i == 0 else 2)]
            stage += [BasicBlock(outputs, outputs, 1) for _ in range(count - 1)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
            inputs = outputs
        self.stages = tuple(f"layer{i + 1}" for i in range(len(blocks)))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x):
            x = torch.relu(self.bn1(self.conv1(x.float())))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def resnet18(*, width: int = 64, classes: int = 10, channels: int = 3) -> ResNet:
    """ResNet-18 with ``width`` channels in its first stage."""
    return ResNet(width=width, classes=classes, channels=channels)


def resnet34(*, width: int = 64, classes: int = 10, channels: int = 3) -> ResNet:
    """ResNet-34 with ``width`` channels in its first stage."""
    return ResNet(width=width, classes=classes, channels=channels, blocks=(3, 4, 6, 3))
