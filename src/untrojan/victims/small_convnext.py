"""A short ConvNeXt (Liu et al., CVPR 2022): wide depthwise convolutions, LayerNorm, GELU."""

from __future__ import annotations

from torch import Tensor, nn

from untrojan.victims.layers import ChannelNorm, in_full_precision
from untrojan.victims.layers import activation as activation_of


class ConvNeXtBlock(nn.Module):
    """A 5x5 convolution within each channel, LayerNorm, two 1x1 convolutions, beside a shortcut."""

    def __init__(self, width: int, activation: str):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 5, padding=2, groups=width),
            ChannelNorm(width),
            nn.Conv2d(width, 4 * width, 1),
            activation_of(activation),
            nn.Conv2d(4 * width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        sum_: Tensor = x + self.body(x)
        return sum_


class SmallConvNeXt(nn.Module):
    """Images [N, channels, H, W] to logits [N, classes]: patches of 2 x 2, three stages of ``depth`` blocks."""

    def __init__(
        self, *, width: int = 16, classes: int = 10, channels: int = 3, depth: int = 1, activation: str = "gelu"
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 2, 2)
        layers: list[nn.Module] = [ChannelNorm(width)]
        inputs = width
        for stage in range(3):
            layers += [ConvNeXtBlock(inputs, activation) for _ in range(depth)]
            if stage < 2:
                layers += [ChannelNorm(inputs), nn.Conv2d(inputs, 2 * inputs, 2, 2)]
                inputs *= 2
        self.features = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(inputs)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.norm(self.features(in_full_precision(self.conv1, x)).mean((2, 3))))
        return logits
