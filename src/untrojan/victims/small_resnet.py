"""Residual networks of three stages for small images, as He et al. (CVPR and ECCV 2016) made them for CIFAR-10; with
wider stages as Zagoruyko and Komodakis (BMVC 2016), with the normalisation and activation of choice."""

from __future__ import annotations

from torch import Tensor, nn

from untrojan.victims.layers import activation as activation_of
from untrojan.victims.layers import in_full_precision
from untrojan.victims.layers import norm as norm_of


class Block(nn.Module):
    """Two convolutions and a shortcut; ``pre``: normalise and activate before each, else after."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str, activation: str, pre: bool, dropout: float):
        super().__init__()
        self.pre = pre
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=norm == "none")
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=norm == "none")
        self.norm1 = norm_of(norm, inputs if pre else outputs)
        self.norm2 = norm_of(norm, outputs)
        self.act1, self.act2 = activation_of(activation), activation_of(activation)
        self.drop = nn.Dropout2d(dropout)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.pre:
            y = self.conv2(self.act2(self.norm2(self.drop(self.conv1(self.act1(self.norm1(x)))))))
            sum_: Tensor = y + self.shortcut(x)
            return sum_
        y = self.norm2(self.conv2(self.drop(self.act1(self.norm1(self.conv1(x))))))
        out: Tensor = self.act2(y + self.shortcut(x))
        return out


class SmallResNet(nn.Module):
    """Images [N, channels, H, W] to logits [N, classes]: three stages of ``depth`` blocks, ``widen`` times as wide."""

    def __init__(
        self,
        *,
        width: int = 8,
        classes: int = 10,
        channels: int = 3,
        depth: int = 1,
        widen: int = 1,
        norm: str = "batch",
        activation: str = "relu",
        pre: int = 0,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        start: list[nn.Module] = [] if pre else [norm_of(norm, width), activation_of(activation)]
        blocks, inputs = start, width
        for stage in range(3):
            outputs = width * widen * 2**stage
            for number in range(depth):
                stride = 2 if stage and not number else 1
                blocks.append(Block(inputs, outputs, stride, norm, activation, bool(pre), dropout))
                inputs = outputs
        end = [norm_of(norm, inputs), activation_of(activation)] if pre else []
        self.features = nn.Sequential(*blocks, *end, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.features(in_full_precision(self.conv1, x)))
        return logits
