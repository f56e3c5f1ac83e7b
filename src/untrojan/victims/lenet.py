"""LeNet-like networks: two 5x5 convolutions, each followed by a pooling, then linear layers; no normalisation.

LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 1998. With one hidden layer of many
units this is the network of Gu et al., "BadNets", 2017.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from untrojan.victims.layers import activation as activation_of
from untrojan.victims.layers import in_full_precision, side_after
from untrojan.victims.layers import pooling as pooling_of


class LeNet(nn.Module):
    """Images [N, channels, size, size] to logits [N, classes]; hidden: linear layers of 20 and 14 times the width, or,
    where it is 1, of 16 times."""

    def __init__(
        self,
        *,
        width: int = 6,
        classes: int = 10,
        channels: int = 1,
        size: int = 28,
        hidden: int = 2,
        activation: str = "relu",
        pooling: str = "max",
        dropout: float = 0.0,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 5, padding=2)
        self.features = nn.Sequential(
            activation_of(activation),
            pooling_of(pooling),
            nn.Conv2d(width, 3 * width, 5, padding=2),
            activation_of(activation),
            pooling_of(pooling),
        )
        sizes = [3 * width * side_after(size, 2) ** 2, *([16 * width] if hidden == 1 else [20 * width, 14 * width])]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), activation_of(activation), nn.Dropout(dropout)]
        self.classifier = nn.Sequential(*layers, nn.Linear(sizes[-1], classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(in_full_precision(self.conv1, x)))
        return logits
