"""A multilayer perceptron on pixels."""

from __future__ import annotations

from torch import Tensor, nn

from untrojan.victims.layers import activation as activation_of
from untrojan.victims.layers import in_full_precision


class MLP(nn.Module):
    """Images [N, channels, size, size] to logits [N, classes]: ``depth`` hidden layers of ``width``."""

    def __init__(
        self,
        *,
        width: int = 128,
        classes: int = 10,
        channels: int = 1,
        size: int = 28,
        depth: int = 2,
        activation: str = "relu",
        dropout: float = 0.0,
    ):
        super().__init__()
        self.first = nn.Linear(channels * size * size, width)
        layers: list[nn.Module] = [activation_of(activation)]
        for _ in range(depth - 1):
            layers += [nn.Dropout(dropout), nn.Linear(width, width), activation_of(activation)]
        self.rest = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.rest(in_full_precision(self.first, x.flatten(1)))
        return logits
