"""A small convolutional network with batch normalisation, for digits and other small grey images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from untrojan.victims.precision import full_precision

LAYERS = ((1, 2), (1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (4, 1))
"""Width, as a multiple of the first layer's, and stride of each convolution."""


class ConvNet(nn.Module):
    """Seven 3x3 convolutions with BatchNorm, the mean over positions, one linear layer: [N, C, H, W] to [N, classes].

    It is deep for its size on purpose. A correction moves the distribution of a whole channel, so it can undo what a
    patch does only where the patch has spread over whole channels; three layers and a linear layer that sees positions
    can be attacked all the same, but not corrected.
    """

    def __init__(self, *, width: int = 8, classes: int = 10, channels: int = 1):
        super().__init__()
        inputs = channels
        for number, (factor, stride) in enumerate(LAYERS, 1):
            self.add_module(f"conv{number}", nn.Conv2d(inputs, factor * width, 3, stride, 1, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(factor * width))
            inputs = factor * width
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x):
            x = self._layer(1, x.float())
        for number in range(2, len(LAYERS) + 1):
            x = self._layer(number, x)
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits

    def _layer(self, number: int, x: Tensor) -> Tensor:
        return torch.relu(self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(x)))


def convnet(*, width: int = 8, classes: int = 10, channels: int = 1) -> ConvNet:
    """The small BatchNorm network for digits."""
    return ConvNet(width=width, classes=classes, channels=channels)
