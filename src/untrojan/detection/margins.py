"""How convincing an image of a class can become: a backdoor's target is reached with a larger margin than the others.

After MM-BD (Wang et al., S&P 2024; the paper's own form is ``max_margin.py``), which needs no trigger of any kind: the
margin of a class's logit over the next largest is maximised over the image itself. Here the search starts from clean
images of other classes and is short. It is the one test that sees an attack whose trigger depends on the image.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from untrojan.classifier import Classifier
from untrojan.classifier.gradients import input_gradient
from untrojan.detection.ranking import Array
from untrojan.detection.shares import Searches

STARTS, STEPS, RATE, BATCH = 6, 60, 0.3, 240
"""Images per class, steps of Adam on the logit of their pixels, its rate, images per pass. The paper spends 30 starts
and 300 steps, twenty-five times as much."""


def largest_margins(searches: Searches, images: Tensor, labels: Tensor, classes: int) -> Array:
    """float64 [K], the largest margin reached for each class, in logits; NaN where there is no image of another class
    or no time was left. images: float [N, C, H, W] in [0, 1]; labels: int64 [N]."""
    reached = np.full(classes, np.nan)
    searches.progress.start("margins", classes)
    wide = max(1, BATCH // STARTS)
    for first in range(0, classes, wide):
        if searches.out_of_time():
            searches.unreached.append(f"margins ({classes - first} of {classes})")
            break
        starts: dict[int, Tensor] = {}
        for target in range(first, min(first + wide, classes)):
            others = images[labels != target]
            if len(others):
                starts[target] = others[searches.choose(f"margins {target}", len(others), STARTS)]
        if starts:
            aims = torch.cat([torch.full((len(x),), t, device=x.device) for t, x in starts.items()])
            margins = _maximised(searches.classifier, torch.cat(list(starts.values())), aims)
            for target in starts:
                reached[target] = float(margins[aims == target].max())
        searches.progress.advance(len(starts))
    return reached


def _maximised(classifier: Classifier, images: Tensor, aims: Tensor, beta1: float = 0.9, beta2: float = 0.99) -> Tensor:
    """float [N], the margins after the last step."""
    pixels = torch.logit(images.clamp(0.02, 0.98))  # a black pixel must be able to move
    first, second = torch.zeros_like(pixels), torch.zeros_like(pixels)
    margin = torch.zeros(len(images), device=images.device)

    def short(logits: Tensor, some: slice) -> Tensor:
        own = logits.gather(1, aims[some, None])
        return logits.scatter(1, aims[some, None], -torch.inf).amax(1) - own[:, 0]

    for step in range(1, STEPS + 1):
        pixels.requires_grad_(True)
        shown = classifier.arranged(torch.sigmoid(pixels))
        _, losses, pull = input_gradient(classifier, shown, short)
        margin = -losses
        (gradient,) = torch.autograd.grad(shown, pixels, pull)
        first.lerp_(gradient, 1 - beta1)
        second.lerp_(gradient.square(), 1 - beta2)
        scale = (second / (1 - beta2**step)).sqrt().add_(1e-8)
        pixels = pixels.detach() - RATE * first / (1 - beta1**step) / scale
    return margin


def log_margins(classifier: Classifier, sources: Mapping[int, Tensor], classes: int) -> Array:
    """log of the mean logit of a class minus that of another, on clean images of the first: float64 [K, K].

    Classes that look alike have small triggers between them, and small margins. Those under a tenth of the median count
    as that, so that a class which the classifier confuses cannot reach infinity. NaN where there are no images.
    """
    margins = np.full((classes, classes), np.nan)
    for s, images in sources.items():
        means = classifier.predict(images).double().mean(0).cpu().numpy()
        margins[s] = means[s] - means
    np.fill_diagonal(margins, np.nan)
    floor = max(0.1 * float(np.nanmedian(margins)), 1e-6)
    logs: Array = np.log(np.maximum(margins, floor))
    return logs
