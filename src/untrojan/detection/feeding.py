"""Whether the classifier would be right more often if its images were fed in another of the usual ways.

Normalising twice, not at all, or by another set's statistics is the commonest mistake, and a network that is fed
wrongly looks like no clean one. Nothing is changed: what is found stands in the search table.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from untrojan.classifier import Classifier

BATCH = 128
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR = ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))
MNIST = ((0.1307,), (0.3081,))
HALF = ((0.5,), (0.5,))


def alternatives(classifier: Classifier, images: Tensor, labels: Tensor) -> tuple[tuple[str, float], ...]:
    """The share of images that is classified right in each usual way of feeding them, the user's own not among them.

    images: float [N, C, H, W] in [0, 1]; labels: int64 [N]. An answer that is no finite number is not right.
    """
    own = classifier.normalise(images[:8])
    found: list[tuple[str, float]] = []
    for name, feed in _ways(classifier, images.shape[1]).items():
        if not torch.allclose(feed(images[:8]), own, atol=1e-4):
            right = _right(classifier, feed, images, labels)
            found += [] if right is None else [(name, right)]
    return tuple(found)


def _ways(classifier: Classifier, channels: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """From images in [0, 1] to what the network is fed, by name."""
    ways = {"no normalisation": _normalise((0.0,), (1.0,)), "mean 0.5 and std 0.5": _normalise(*HALF)}
    if channels == 3:
        ways |= {"ImageNet's mean and std": _normalise(*IMAGENET), "CIFAR-10's mean and std": _normalise(*CIFAR)}
    if channels == 1:
        ways["MNIST's mean and std"] = _normalise(*MNIST)
    ways["values of 0 to 255"] = _normalise((0.0,), (1 / 255,))
    if channels == 3:
        ways["channels in reverse order"] = lambda images: classifier.normalise(images.flip(1))
    return ways


def _normalise(mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[Tensor], Tensor]:
    def feed(images: Tensor) -> Tensor:
        centre, scale = (torch.tensor(values, device=images.device).view(1, -1, 1, 1) for values in (mean, std))
        return (images - centre) / scale

    return feed


def _right(classifier: Classifier, feed: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> float | None:
    """None if the network refuses to be fed like that."""
    size = max(16, min(BATCH, BATCH * 64**2 // max(1, images.shape[2:].numel())))
    right = 0
    with torch.no_grad():
        for batch, truth in zip(images.split(size), labels.split(size), strict=True):
            try:
                logits = classifier.module(feed(batch))
            except Exception:  # whatever a foreign network raises: some check the range of what they get
                return None
            finite = logits.isfinite().all(1)
            right += int((finite & (logits.argmax(1) == truth)).sum())
    return right / max(1, len(labels))
