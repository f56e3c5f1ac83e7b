"""Where a network looks: attention maps of its stages, which NAD and ARGD compare between two networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.sites import captured
from untrojan.errors import UnsupportedError

STAGES = 3


@torch.no_grad()
def stages(classifier: Classifier, images: Tensor, count: int = STAGES) -> tuple[str, ...]:
    """Names of the modules that end the last ``count`` stages: the last output of each size of feature map.

    For a ResNet these are its last three groups of blocks, as in NAD. Raises UnsupportedError if no module has a
    feature map [N, C, H, W] of more than one pixel as its output.
    """
    ended: dict[tuple[int, int], str] = {}
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def seen(_module: nn.Module, _inputs: tuple[object, ...], output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
                size = (output.shape[2], output.shape[3])
                ended.pop(size, None)  # so that the order is that of the last output of each size
                ended[size] = name

        handles.append(module.register_forward_hook(seen))

    for name, module in classifier.module.named_modules():
        if name:
            watch(name, module)
    try:
        classifier(images[:2])
    finally:
        for handle in handles:
            handle.remove()
    if not ended:
        raise UnsupportedError("this network has no feature maps, whose attention could be compared")
    return tuple(ended.values())[-count:]


@contextmanager
def looking(classifier: Classifier, names: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
    """Inside, the feature maps of these modules in the last pass, by name."""
    with captured({name: classifier.module.get_submodule(name) for name in names}) as outputs:
        yield outputs


def attention(features: Tensor, power: float = 2.0) -> Tensor:
    """Mean over channels of |activation|^power, at each position, scaled to length 1: [N, C, H, W] to [N, H * W].

    Source: Zagoruyko and Komodakis, ICLR 2017, as NAD uses it.
    """
    return functional.normalize(features.abs().pow(power).mean(1).flatten(1), dim=1)
