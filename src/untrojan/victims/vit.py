"""A small vision transformer (Dosovitskiy et al., ICLR 2021): LayerNorm and GELU, no BatchNorm anywhere."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from untrojan.victims.precision import full_precision

PATCH, DEPTH, HEAD = 4, 6, 16


class Block(nn.Module):
    """Attention, then two linear layers, each after a LayerNorm and beside a shortcut."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        images, places, width = x.shape
        parts = self.attention(self.norm1(x)).view(images, places, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.mix(seen.transpose(1, 2).reshape(images, places, width))
        fed: Tensor = self.linear2(functional.gelu(self.linear1(self.norm2(x))))
        return x + fed


class ViT(nn.Module):
    """Images [N, channels, H, W], H and W at least 4, to logits [N, classes].

    Positions are sines and cosines of row and column, so one network takes any size; the classifier reads the mean
    over places.
    """

    def __init__(self, *, width: int = 64, classes: int = 10, channels: int = 3, depth: int = DEPTH):
        super().__init__()
        # Sines and cosines of two axes need four equal parts; heads need their share.
        inner = math.ceil(width / HEAD) * HEAD
        self.conv1 = nn.Conv2d(channels, inner, PATCH, PATCH)
        self.blocks = nn.Sequential(*(Block(inner, inner // HEAD) for _ in range(depth)))
        self.norm = nn.LayerNorm(inner)
        self.linear = nn.Linear(inner, classes)

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x):
            x = self.conv1(x.float())
            x = (x + positions(x.shape[1], x.shape[2], x.shape[3], x.device)).flatten(2).transpose(1, 2)
        logits: Tensor = self.linear(self.norm(self.blocks(x)).mean(1))
        return logits


def positions(width: int, rows: int, columns: int, device: torch.device) -> Tensor:
    """[width, rows, columns]: sines and cosines of the row in one half, of the column in the other."""
    rate = torch.exp(-math.log(100.0) * torch.arange(width // 4, device=device) / (width // 4))
    down = rate[:, None, None] * torch.arange(rows, device=device)[None, :, None]
    across = rate[:, None, None] * torch.arange(columns, device=device)[None, None, :]
    whole = (-1, rows, columns)
    return torch.cat([f(angle).expand(whole) for angle in (down, across) for f in (torch.sin, torch.cos)])


def vit(*, width: int = 64, classes: int = 10, channels: int = 3, depth: int = DEPTH) -> ViT:
    """The small vision transformer; its inner width is ``width``, rounded up to a multiple of 16."""
    return ViT(width=width, classes=classes, channels=channels, depth=depth)
