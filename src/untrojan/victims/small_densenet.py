"""A short DenseNet (Huang et al., CVPR 2017): every layer of a block sees the channels of all before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from untrojan.victims.layers import activation as activation_of
from untrojan.victims.layers import in_full_precision


class DenseLayer(nn.Module):
    """Normalise, activate, convolve, and put the new channels beside the old ones."""

    def __init__(self, inputs: int, growth: int, activation: str):
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.act = activation_of(activation)
        self.conv = nn.Conv2d(inputs, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(self.act(self.norm(x)))], 1)


class SmallDenseNet(nn.Module):
    """Images [N, channels, H, W] to logits [N, classes]: three blocks of ``depth`` layers of ``width`` channels."""

    def __init__(
        self, *, width: int = 8, classes: int = 10, channels: int = 3, depth: int = 3, activation: str = "relu"
    ):
        super().__init__()
        inputs = 2 * width
        self.conv1 = nn.Conv2d(channels, inputs, 3, 1, 1, bias=False)
        layers: list[nn.Module] = []
        for block in range(3):
            for _ in range(depth):
                layers.append(DenseLayer(inputs, width, activation))
                inputs += width
            if block < 2:
                layers += [
                    nn.BatchNorm2d(inputs),
                    activation_of(activation),
                    nn.Conv2d(inputs, inputs // 2, 1, bias=False),
                    nn.AvgPool2d(2, ceil_mode=True),
                ]
                inputs //= 2
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(inputs), activation_of(activation))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.features(in_full_precision(self.conv1, x)).mean((2, 3)))
        return logits
