"""How a loss pulls at the images, in passes that fit into memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from untrojan.classifier.classifier import Classifier

Loss = Callable[[Tensor, slice], Tensor]
"""Logits [M, K] of some of the images, and which ones, to their losses [M]."""


def input_gradient(
    classifier: Classifier, images: Tensor, loss: Loss, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [N, K], losses [N], and the gradient of their sum / scale in the images, [N, C, H, W].

    images: float [N, C, H, W]; at most ``images_per_pass`` of the classifier pass at once, which is the same but for
    rounding. The classifier is in evaluation mode with frozen parameters.
    """
    width = classifier.images_per_pass or len(images)
    parts = []
    for start in range(0, len(images), width):
        index = slice(start, start + width)
        shown = images[index].detach().requires_grad_(True)
        logits = classifier(shown).float()
        losses = loss(logits, index)
        (gradient,) = torch.autograd.grad(losses.sum() / scale, shown)
        parts.append((logits.detach(), losses.detach(), gradient))
    if len(parts) == 1:
        return parts[0]
    logits, losses, gradient = (torch.cat(part) for part in zip(*parts, strict=True))
    return logits, losses, gradient
