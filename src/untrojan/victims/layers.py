"""Activations, normalisations and poolings by name, for networks that are made with one or another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from untrojan.errors import UsageError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.1),
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
NORMS = ("none", "batch", "group", "layer", "instance")
POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "max": lambda: nn.MaxPool2d(2, ceil_mode=True),
    "mean": lambda: nn.AvgPool2d(2, ceil_mode=True),
}


def activation(name: str) -> nn.Module:
    """A new activation; raises UsageError for a name that there is not."""
    return _named(ACTIVATIONS, name, "activation")()


def pooling(name: str) -> nn.Module:
    """A new pooling by two; raises UsageError for a name that there is not."""
    return _named(POOLINGS, name, "pooling")()


def norm(name: str, channels: int) -> nn.Module:
    """A new normalisation of [N, channels, H, W]: "group" has groups of about eight channels, "layer" one of all.

    Raises UsageError for a name that there is not.
    """
    if name == "none":
        return nn.Identity()
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name in ("group", "layer", "instance"):
        wanted = {"group": max(1, channels // 8), "layer": 1, "instance": channels}[name]
        groups = next(g for g in range(wanted, 0, -1) if channels % g == 0)
        return nn.GroupNorm(groups, channels)
    raise UsageError(f"norm '{name}' is not one of {', '.join(NORMS)}")


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each place of [N, channels, H, W]."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return normed


def side_after(size: int, halvings: int) -> int:
    """The side of an image after so many poolings by two that round up.

    >>> side_after(28, 3)
    4
    """
    for _ in range(halvings):
        size = (size + 1) // 2
    return size


def in_full_precision(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer that reads pixels, outside of mixed precision: bfloat16's step near 1 is a faint trigger's size."""
    with torch.autocast(x.device.type, enabled=False):
        seen: Tensor = layer(x.float())
    return seen


def _named(table: dict[str, Callable[[], nn.Module]], name: str, what: str) -> Callable[[], nn.Module]:
    if name not in table:
        raise UsageError(f"{what} '{name[:40]}' is not one of {', '.join(table)}")
    return table[name]
