"""Whether the classifier would be right more often if its images were fed in another of the usual ways.

Normalising twice, not at all, or by another set's statistics is the commonest mistake, and a network that is fed
wrongly looks like no clean one. Nothing is changed: what is found stands in the search table.
"""

from __future__ import annotations

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

    images: float [N, C, H, W] in [0, 1]; labels: int64 [N]. A way in which the network answers with no number of its
    own has a share of 0.
    """
    own = classifier.normalise(images[:8])
    found: list[tuple[str, float]] = []
    for name, fed in _ways(classifier, images):
        if not torch.allclose(fed[:8], own, atol=1e-4):
            found.append((name, _right(classifier, fed, labels)))
    return tuple(found)


def _ways(classifier: Classifier, images: Tensor) -> list[tuple[str, Tensor]]:
    channels = images.shape[1]
    by: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
        "no normalisation": ((0.0,), (1.0,)),
        "mean 0.5 and std 0.5": HALF,
    }
    if channels == 3:
        by |= {"ImageNet's mean and std": IMAGENET, "CIFAR-10's mean and std": CIFAR}
    if channels == 1:
        by |= {"MNIST's mean and std": MNIST}
    ways = [(name, _normalised(images, *values)) for name, values in by.items()]
    ways.append(("values of 0 to 255", images * 255))
    if channels == 3:
        ways.append(("channels in reverse order", classifier.normalise(images.flip(1))))
    return ways


def _normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    centre, scale = (torch.tensor(values, device=images.device).view(1, -1, 1, 1) for values in (mean, std))
    return (images - centre) / scale


def _right(classifier: Classifier, fed: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        answers = torch.cat([classifier.module(batch.clone()).argmax(1) for batch in fed.split(BATCH)])
    return float((answers == labels).float().mean())
