"""Classifiers made for testing the defence on: architectures, training, poisoned or clean on demand."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from untrojan.victims.convnet import convnet
from untrojan.victims.resnet import resnet18

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"convnet": convnet, "resnet18": resnet18}
"""The built-in models: callables with the keyword arguments ``width``, ``classes`` and ``channels``."""

__all__ = ["ARCHITECTURES", "convnet", "resnet18"]
