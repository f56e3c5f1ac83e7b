"""What a classifier is, and what it says of the clean images, as the search table has it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from untrojan.classifier import Classifier
from untrojan.detection.feeding import alternatives
from untrojan.detection.table import Network

CLOSE = 100
"""Images among which distances are measured."""


def describe(classifier: Classifier, images: Tensor, labels: Tensor, classes: int, seed: int) -> Network:
    """What the classifier is and says of the clean images, all but its ``reach``; before any layer is folded.

    images: float [N, C, H, W] in [0, 1]; labels: int64 [N], below ``classes``.
    """
    logits = classifier.predict(images).double().cpu()
    shape, known = images.shape, labels.cpu()
    gaps = torch.full((classes, classes), torch.nan, dtype=torch.float64)
    for s in known.unique().tolist():
        means = logits[known == s].mean(0)
        gaps[s] = means[s] - means
    gaps.fill_diagonal_(torch.nan)
    confusion = torch.bincount(known * classes + logits.argmax(1), minlength=classes**2)
    some = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))[:CLOSE]
    flat, own = images[some].flatten(1).cpu(), known[some]
    apart = torch.cdist(flat, flat)[own[:, None] != own[None, :]]
    layers: dict[str, int] = {}
    for module in classifier.module.modules():
        if next(module.children(), None) is None and not isinstance(module, nn.Identity):
            layers[type(module).__name__] = layers.get(type(module).__name__, 0) + 1
    return Network(
        classes=classes,
        images=tuple(torch.bincount(known, minlength=classes).tolist()),
        confusion=tuple(confusion.tolist()),
        input_shape=(shape[1], shape[2], shape[3]),
        parameters=sum(p.numel() for p in classifier.module.parameters()),
        layers=tuple(sorted(layers.items())),
        logit_gaps=tuple(gaps.flatten().tolist()),
        reach=(math.nan,) * classes,
        distance=float(apart.median()) if apart.numel() else math.nan,
        contrast=float(images.flatten(1).std(1).mean()),
        sureness=float(logits.softmax(1).amax(1).mean()),
        alternatives=alternatives(classifier, images, labels),
    )
