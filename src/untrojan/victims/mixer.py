"""A small MLP-Mixer (Tolstikhin et al., NeurIPS 2021): perceptrons over places and over channels in turn."""

from __future__ import annotations

from torch import Tensor, nn

from untrojan.victims.layers import activation as activation_of
from untrojan.victims.layers import in_full_precision

PATCH = 4


class MixerBlock(nn.Module):
    """Two perceptrons, each after a LayerNorm and beside a shortcut."""

    def __init__(self, places: int, width: int, activation: str):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.over_places = nn.Sequential(nn.Linear(places, width), activation_of(activation), nn.Linear(width, places))
        self.over_channels = nn.Sequential(
            nn.Linear(width, 2 * width), activation_of(activation), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.over_places(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        sum_: Tensor = x + self.over_channels(self.norm2(x))
        return sum_


class Mixer(nn.Module):
    """Images [N, channels, size, size], size a multiple of 4 or cropped to one, to logits [N, classes]."""

    def __init__(
        self,
        *,
        width: int = 32,
        classes: int = 10,
        channels: int = 3,
        size: int = 32,
        depth: int = 3,
        activation: str = "gelu",
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, PATCH, PATCH)
        places = (size // PATCH) ** 2
        self.blocks = nn.Sequential(*(MixerBlock(places, width, activation) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        seen = in_full_precision(self.conv1, x).flatten(2).transpose(1, 2)
        logits: Tensor = self.linear(self.norm(self.blocks(seen)).mean(1))
        return logits
