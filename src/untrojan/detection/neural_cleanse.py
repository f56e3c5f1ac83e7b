"""Neural Cleanse (Wang et al., S&P 2019) as it is usually run: one patch per class, and the MAD rule.

For each target a mask and a pattern under Adam, L1 of the mask with a weight that grows while 98 % of the images are
sent to the target, and falls while they are not. The smallest mask with that success is a class's
statistic; it is odd if it lies more than two normalised MADs under the median. Settings: BackdoorBench's (80 epochs,
10 batches each).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from untrojan.classifier import Classifier, as_found
from untrojan.detection.detectors import Detection

BATCH = 512
"""Images in a pass, of several targets."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """epochs, batches: how long, per class; success: the rate above which the weight of the mask's size grows, by
    ``factor``, after ``patience`` epochs in a row (and falls, by factor^1.5, after as many below); threshold: MADs."""

    epochs: int = 80
    batches: int = 10
    rate: float = 0.1
    cost: float = 1e-3
    success: float = 0.98
    factor: float = 2.0
    patience: int = 5
    threshold: float = 2.0


def neural_cleanse(
    classifier: Classifier, images: Tensor, labels: Tensor, seed: int = 0, settings: Settings | None = None
) -> Detection:
    """Neural Cleanse. images: float [N, C, H, W] in [0, 1]; labels: not looked at, as in its users' code."""
    settings = settings or Settings()
    with as_found(classifier):
        classes = classifier.predict(images[:1]).shape[1]
        sizes: list[float] = []
        wide = max(1, BATCH * settings.batches // len(images))
        for first in range(0, classes, wide):
            sizes += smallest_masks(classifier, images, range(first, min(first + wide, classes)), seed, settings)
    index = anomaly_index(sizes)
    odd = tuple(int(t) for t in np.argsort(-index) if index[t] > settings.threshold)
    return Detection(tuple(sizes), float(index.max()), bool(odd), odd)


def anomaly_index(sizes: list[float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """(median - size) / (1.4826 MAD) of each: float64 [K], positive for small ones.

    >>> anomaly_index([10.0, 11.0, 12.0, 13.0, 2.0]).round(2).tolist()
    [0.67, 0.0, -0.67, -1.35, 6.07]
    """
    values = np.asarray(sizes, dtype=np.float64)
    centre = np.median(values)
    spread = max(1.4826 * float(np.median(np.abs(values - centre))), 1e-12)
    return np.asarray((centre - values) / spread)


def smallest_masks(
    classifier: Classifier, images: Tensor, targets: Sequence[int], seed: int, settings: Settings
) -> list[float]:
    """L1 of the smallest mask of each target, in pixels, whose patch sends ``success`` of an epoch's images there; if
    none did, that of the last. The targets do not touch each other, so they share the passes."""
    count, (channels, height, width) = len(targets), images.shape[1:]
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randn((count, 1, 1, height, width), generator=generator).to(images.device).requires_grad_()
    pattern = torch.randn((count, 1, channels, height, width), generator=generator).to(images.device).requires_grad_()
    optimiser = torch.optim.Adam([mask, pattern], lr=settings.rate, betas=(0.5, 0.9))
    aims = torch.tensor(targets, device=images.device)[:, None]
    cost = np.full(count, settings.cost)
    above, below = np.zeros(count, int), np.zeros(count, int)
    best, last = np.full(count, np.inf), np.full(count, np.inf)
    for _ in range(settings.epochs):
        reached: list[Tensor] = []
        for index in torch.randperm(len(images), generator=generator).chunk(settings.batches):
            opaque, colour = torch.tanh(mask) / 2 + 0.5, torch.tanh(pattern) / 2 + 0.5
            stamped = ((1 - opaque) * images[index] + opaque * colour).flatten(0, 1)
            logits = classifier(classifier.arranged(stamped)).float()
            aim = aims.expand(-1, len(index)).flatten()
            loss = functional.cross_entropy(logits, aim, reduction="none").view(count, -1).mean(1)
            size = opaque.sum((1, 2, 3, 4))
            optimiser.zero_grad()
            (loss + torch.from_numpy(cost).to(size) * size).sum().backward()
            optimiser.step()
            reached.append((logits.argmax(1) == aim).view(count, -1).float().mean(1))
        last, success = size.detach().double().cpu().numpy(), torch.stack(reached).mean(0).cpu().numpy()
        good = success >= settings.success
        best = np.where(good, np.minimum(best, last), best)
        above, below = np.where(good, above + 1, 0), np.where(good, 0, below + 1)
        dearer, cheaper = above >= settings.patience, below >= settings.patience
        cost = np.where(dearer, cost * settings.factor, np.where(cheaper, cost / settings.factor**1.5, cost))
        above, below = np.where(dearer, 0, above), np.where(cheaper, 0, below)
    return [float(x) for x in np.where(np.isfinite(best), best, last)]
