"""Classifiers made for testing the defence on: architectures, training, poisoned or clean on demand."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from untrojan.victims.convnet import convnet
from untrojan.victims.lenet import LeNet
from untrojan.victims.mixer import Mixer
from untrojan.victims.mlp import MLP
from untrojan.victims.mobilenet import mobilenet
from untrojan.victims.preact_resnet import preact_resnet18
from untrojan.victims.resnet import resnet18, resnet34
from untrojan.victims.small_convnext import SmallConvNeXt
from untrojan.victims.small_densenet import SmallDenseNet
from untrojan.victims.small_mobilenet import SmallMobileNet
from untrojan.victims.small_resnet import SmallResNet
from untrojan.victims.small_vgg import SmallVGG
from untrojan.victims.vgg import vgg16_bn
from untrojan.victims.vit import vit

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "convnet": convnet,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "preact_resnet18": preact_resnet18,
    "mobilenet": mobilenet,
    "vgg16_bn": vgg16_bn,
    "vit": vit,
    "mlp": MLP,
    "lenet": LeNet,
    "mixer": Mixer,
    "small_vgg": SmallVGG,
    "small_resnet": SmallResNet,
    "small_densenet": SmallDenseNet,
    "small_mobilenet": SmallMobileNet,
    "small_convnext": SmallConvNeXt,
}
"""The built-in models: callables with the keyword arguments ``width``, ``classes`` and ``channels``; those that are
made for images of one size take ``size``, their side, as well. More arguments have defaults."""

__all__ = [
    "ARCHITECTURES",
    "convnet",
    "mobilenet",
    "preact_resnet18",
    "resnet18",
    "resnet34",
    "vgg16_bn",
    "vit",
]
