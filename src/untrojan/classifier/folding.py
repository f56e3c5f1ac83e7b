"""Passes without batch normalisations: in evaluation mode each is a part of the convolution before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.state import hooks_of

TOLERANCE = 1e-3
"""By how much answers may differ, as a share of the largest: rounding, and nothing else, stays far below."""


@contextmanager
def folded(classifier: Classifier, images: Tensor) -> Iterator[None]:
    """Inside, every convolution that a batch normalisation alone follows does the work of both; a pass of ResNet-18
    with gradients takes a quarter less time. To be entered in evaluation mode with frozen parameters.

    The network's own code runs as before, the layers are put back afterwards, and no tensor of theirs is written. A
    network that makes anything else of its layers than calling them answers otherwise then, and is left as it is. So
    are layers with hooks. images: float [N, C, H, W] in [0, 1]; two pass a few times.
    """
    shown = classifier.arranged(images[:2].detach())
    with torch.no_grad():
        pairs = _pairs(classifier, shown)
        before = classifier(shown)
        names = {id(module): name for name, module in classifier.module.named_modules()}
        merged = {names[id(conv)]: fuse_conv_bn_eval(conv, norm) for conv, norm in pairs}
        layers: dict[str, nn.Module] = {**merged, **{names[id(norm)]: nn.Identity().eval() for _, norm in pairs}}
    own = {name: classifier.module.get_submodule(name) for name in layers}
    try:
        _put(classifier.module, layers)
        if not _same(classifier, shown, before):
            _put(classifier.module, own)
        yield
    finally:
        _put(classifier.module, own)


def _pairs(classifier: Classifier, images: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions and the normalisations that are given just what these return, each being called once in a pass."""
    calls: dict[int, int] = {}
    returned: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}  # the tensors are kept, so that no other has their address
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls[id(module)] = calls.get(id(module), 0) + 1
        came = returned.get(id(inputs[0])) if inputs else None
        if isinstance(module, nn.Conv2d):
            returned[id(output)] = module, output, output._version
        elif isinstance(module, nn.BatchNorm2d) and came is not None and came[1]._version == came[2]:
            found.append((came[0], module))

    places = Counter(m for name, m in classifier.module.named_modules(remove_duplicate=False) if name)
    ours = [module for module, count in places.items() if count == 1 and _foldable(module)]
    handles = [module.register_forward_hook(after) for module in ours]
    try:
        classifier(images)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in found if all(calls[id(module)] == 1 for module in pair)]


def _foldable(module: nn.Module) -> bool:
    if any(isinstance(hooks, dict) and hooks for hooks in hooks_of(module).values()):
        return False
    # No subclass: it may do more, as one that computes its weights does.
    return type(module) is nn.Conv2d or (type(module) is nn.BatchNorm2d and module.running_mean is not None)


def _same(classifier: Classifier, images: Tensor, before: Tensor) -> bool:
    try:
        with torch.no_grad():
            now = classifier(images)
    except Exception:  # its code asks something else of a layer
        return False
    return now.shape == before.shape and bool((now - before).abs().max() <= TOLERANCE * (1 + before.abs().max()))


def _put(network: nn.Module, layers: dict[str, nn.Module]) -> None:
    for name, layer in layers.items():
        parent, _, own = name.rpartition(".")
        network.get_submodule(parent)._modules[own] = layer
