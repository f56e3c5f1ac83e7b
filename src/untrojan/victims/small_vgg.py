"""A short VGG: stages of 3x3 convolutions and a pooling, with a normalisation of choice, or none."""

from __future__ import annotations

from torch import Tensor, nn

from untrojan.errors import UsageError
from untrojan.victims.layers import activation as activation_of
from untrojan.victims.layers import in_full_precision, side_after
from untrojan.victims.layers import norm as norm_of
from untrojan.victims.layers import pooling as pooling_of

HEADS = ("mean", "places")


class SmallVGG(nn.Module):
    """Images [N, channels, size, size] to logits [N, classes]: three stages of ``depth`` convolutions. head: what the
    last layers see, "mean" of each channel, or "places", all of them, with a hidden layer."""

    def __init__(
        self,
        *,
        width: int = 16,
        classes: int = 10,
        channels: int = 3,
        size: int = 32,
        depth: int = 2,
        norm: str = "none",
        activation: str = "relu",
        pooling: str = "max",
        dropout: float = 0.0,
        head: str = "places",
    ):
        super().__init__()
        if head not in HEADS:
            raise UsageError(f"head '{head[:40]}' is not one of {', '.join(HEADS)}")
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        layers: list[nn.Module] = [norm_of(norm, width), activation_of(activation)]
        inputs = width
        for stage in range(3):
            outputs = width * 2**stage
            for number in range(depth):
                if stage or number:
                    layers += [
                        nn.Conv2d(inputs, outputs, 3, padding=1),
                        norm_of(norm, outputs),
                        activation_of(activation),
                    ]
                inputs = outputs
            layers += [pooling_of(pooling), nn.Dropout2d(dropout)]
        self.features = nn.Sequential(*layers)
        if head == "mean":
            self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
        else:
            seen = inputs * side_after(size, 3) ** 2
            self.classifier = nn.Sequential(
                nn.Flatten(),
                nn.Linear(seen, 8 * width),
                activation_of(activation),
                nn.Dropout(dropout),
                nn.Linear(8 * width, classes),
            )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(in_full_precision(self.conv1, x)))
        return logits
