"""MM-BD (Wang et al., S&P 2024): a backdoor's target class reaches a larger margin than any other class can.

For every class the margin of its logit over the next largest is maximised over images of any content; no clean image is
needed. The largest maximum is compared with an exponential distribution fitted to the others'.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from untrojan.classifier import Classifier, as_found
from untrojan.detection.detectors import Detection

STARTS, STEPS, THRESHOLD = 30, 300, 0.05
"""Of the paper: random images per class, steps, and the p-value below which a classifier is flagged."""

RATE, MOMENTUM, BATCH = 0.05, 0.5, 300


def max_margin(classifier: Classifier, images: Tensor, labels: Tensor, seed: int = 0) -> Detection:
    """MM-BD. images: float [N, C, H, W], for their shape and device alone; labels: not looked at."""
    with as_found(classifier):
        classes = classifier.predict(images[:1]).shape[1]
        margins = maximal_margins(classifier, images.shape[1:], classes, seed)
    p_value = largest_p_value(margins)
    flagged = p_value < THRESHOLD
    return Detection(
        tuple(margins),
        -float(np.log(max(p_value, 1e-300))),
        flagged,
        (int(np.argmax(margins)),) if flagged else (),
    )


def maximal_margins(
    classifier: Classifier, shape: torch.Size, classes: int, seed: int, starts: int = STARTS, steps: int = STEPS
) -> list[float]:
    """The largest margin of each class that projected gradient ascent reaches from ``starts`` random images. Each
    image's gradient is scaled to its largest entry: logits' scales differ a hundredfold between networks."""
    reached: list[float] = []
    wide = max(1, BATCH // starts)
    for first in range(0, classes, wide):
        aims = torch.arange(first, min(first + wide, classes)).repeat_interleave(starts).to(classifier.device)
        generator = torch.Generator().manual_seed(seed * 1000 + first)
        x = torch.rand((len(aims), *shape), generator=generator).to(classifier.device)
        velocity = torch.zeros_like(x)
        best = torch.full((len(aims),), -torch.inf, device=x.device)
        for _ in range(steps):
            x.requires_grad_(True)
            margin = _margin(classifier(classifier.arranged(x)).float(), aims)
            best = torch.maximum(best, margin.detach())
            (gradient,) = torch.autograd.grad(margin.sum(), x)
            gradient = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
            velocity = MOMENTUM * velocity + gradient
            x = (x.detach() + RATE * velocity).clamp(0, 1)
        reached += best.view(-1, starts).amax(1).tolist()
    return reached


def largest_p_value(margins: list[float]) -> float:
    """How often the largest of so many exponential values, fitted to all but the largest, is at least this large. 1
    with fewer than three classes, which leave nothing to fit.

    >>> round(largest_p_value([1.0, 2.0, 3.0, 5.0]), 3)
    0.071
    """
    if len(margins) < 3:
        return 1.0
    ordered = np.sort(np.asarray(margins, dtype=np.float64))
    location = ordered[0]
    scale = float(ordered[:-1].mean() - location)
    if scale <= 0:
        return float(ordered[-1] <= location)
    tail = np.exp(-(ordered[-1] - location) / scale)
    return float(-np.expm1(len(margins) * np.log1p(-min(tail, 1 - 1e-16))))


def _margin(logits: Tensor, aims: Tensor) -> Tensor:
    own = logits.gather(1, aims[:, None])
    return own[:, 0] - logits.scatter(1, aims[:, None], -torch.inf).amax(1)
