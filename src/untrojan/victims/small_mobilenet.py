"""A short MobileNetV2 (Sandler et al., CVPR 2018): inverted residuals with depthwise convolutions."""

from __future__ import annotations

from torch import Tensor, nn

from untrojan.victims.layers import activation as activation_of
from untrojan.victims.layers import in_full_precision


class Inverted(nn.Module):
    """Widen, convolve within each channel, narrow; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, widen: int, activation: str):
        super().__init__()
        inner = inputs * widen
        self.body = nn.Sequential(
            nn.Conv2d(inputs, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            activation_of(activation),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            activation_of(activation),
            nn.Conv2d(inner, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.same else y


class SmallMobileNet(nn.Module):
    """Images [N, channels, H, W] to logits [N, classes]."""

    def __init__(
        self, *, width: int = 8, classes: int = 10, channels: int = 3, widen: int = 3, activation: str = "relu"
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        blocks: list[nn.Module] = [nn.BatchNorm2d(width), activation_of(activation)]
        inputs = width
        for factor, stride in ((1, 1), (2, 2), (2, 1), (4, 2), (4, 1)):
            blocks.append(Inverted(inputs, factor * width, stride, widen, activation))
            inputs = factor * width
        self.features = nn.Sequential(
            *blocks, nn.Conv2d(inputs, 2 * inputs, 1, bias=False), nn.BatchNorm2d(2 * inputs), activation_of(activation)
        )
        self.linear = nn.Linear(2 * inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.features(in_full_precision(self.conv1, x)).mean((2, 3)))
        return logits
