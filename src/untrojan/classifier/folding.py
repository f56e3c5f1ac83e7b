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

TOLERANCE = 1e-4
"""By how much answers may differ, as a share of how far they lie apart: rounding in float32 stays far below."""
PULL = 0.01
"""By how much their gradients in the images may: rounding turns a ReLU on or off here and there."""
SHOWN = 16
"""Images that are compared."""

Slots = list[tuple[dict[str, nn.Module | None], str, nn.Module, nn.Module]]
"""Where a layer is (its parent's modules and its name), the layer, and what takes its place."""


@contextmanager
def folded(classifier: Classifier, images: Tensor) -> Iterator[None]:
    """Inside, every convolution that a batch normalisation alone follows does the work of both; a pass of ResNet-18
    with gradients takes a quarter less time. To be entered in evaluation mode with frozen parameters.

    The network's own code runs as before, the layers are put back afterwards, and no tensor of theirs is written. A
    network whose answers to some of the images, or their gradients, differ by more than rounding is left as it is, and
    so are layers with hooks or a forward of their own. images: float [N, C, H, W] in [0, 1]; sixteen pass a few times.
    """
    shown = classifier.arranged(images[:: max(1, len(images) // SHOWN)][:SHOWN].detach())
    try:
        before = _answers(classifier, shown)
        slots = _slots(classifier, shown)
    except Exception:  # its code does something with its layers that does not bear to be looked at
        slots = []
    try:
        for modules, name, _, made in slots:
            modules[name] = made
        if slots and not _same(classifier, shown, before):
            _put_back(slots)
        yield
    finally:
        _put_back(slots)


def _put_back(slots: Slots) -> None:
    """Also if it is interrupted."""
    try:
        for modules, name, layer, _ in slots:
            modules[name] = layer
    except KeyboardInterrupt:
        _put_back(slots)
        raise


def _slots(classifier: Classifier, images: Tensor) -> Slots:
    with torch.no_grad():
        pairs = _pairs(classifier, images)
        made: dict[nn.Module, nn.Module] = {}
        for conv, norm in pairs:
            made[conv], made[norm] = fuse_conv_bn_eval(conv, norm), nn.Identity().eval()
    return [
        (parent._modules, name, layer, made[layer])
        for parent in classifier.module.modules()
        for name, layer in parent._modules.items()
        if layer is not None and layer in made
    ]


def _pairs(classifier: Classifier, images: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions, each with the one normalisation that is given just what it returns, both called once in a pass."""
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
    followers = Counter(conv for conv, _ in found)
    return [pair for pair in found if followers[pair[0]] == 1 and all(calls[id(module)] == 1 for module in pair)]


def _foldable(module: nn.Module) -> bool:
    if "forward" in vars(module) or any(isinstance(hooks, dict) and hooks for hooks in hooks_of(module).values()):
        return False
    # No subclass: it may do more, as one that computes its weights does.
    return type(module) is nn.Conv2d or (type(module) is nn.BatchNorm2d and module.running_mean is not None)


def _answers(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of their sum of squares in the images."""
    shown = images.clone().requires_grad_(True)
    with torch.enable_grad():
        logits = classifier(shown)
        (pull,) = torch.autograd.grad(logits.square().sum(), shown)
    return logits.detach(), pull


def _same(classifier: Classifier, images: Tensor, before: tuple[Tensor, Tensor]) -> bool:
    try:
        logits, pull = _answers(classifier, images)
    except Exception:  # its code asks something else of a layer
        return False
    apart = (before[0] - before[0].mean(1, keepdim=True)).abs().max()
    close = logits.shape == before[0].shape and bool((logits - before[0]).abs().max() <= TOLERANCE * apart)
    return close and bool((pull - before[1]).norm() <= PULL * before[1].norm())
