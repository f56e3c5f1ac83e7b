"""STRIP (Gao et al., ACSAC 2019): an image whose answer no overlay can change carries a trigger."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.corrected import twin
from untrojan.errors import DataError, UsageError
from untrojan.guard.guard import SLACK, Decision

PASS = 1024
"""Blended images in one pass of the network."""


class Strip(nn.Module):
    """A victim whose inputs are blended with clean images: where the answers hardly vary, the input is flagged.

    Each input is blended with the same ``overlays`` clean images, alpha x + (1 - alpha) overlay, and the mean entropy
    of the victim's answers is compared with those of clean images: the threshold is their quantile at
    ``false_positives``, the paper's way of setting it. It tells no true class, so ``labels`` of its decisions are the
    victim's own, and it knows no target. The overlays are drawn once, where the paper draws anew for each input: a
    decision then depends on nothing but the image.
    """

    flags = True
    targets: Tensor
    overlays: Tensor
    entropies: Tensor

    def __init__(
        self,
        classifier: Classifier,
        images: Tensor,
        *,
        overlays: int = 64,
        alpha: float = 0.5,
        false_positives: float = 0.15,
        seed: int = 0,
    ):
        """images: clean, uint8 or float in [0, 1], [N, C, H, W]; the overlays are drawn from them, and the threshold
        is set on the others. Raises UsageError for settings out of range, DataError for too few images."""
        super().__init__()
        check_settings(overlays=overlays, alpha=alpha, false_positives=false_positives)
        least = overlays + math.ceil(1 / false_positives)  # so that the quantile is of at least one image
        if len(images) < least:
            raise DataError(
                f"STRIP with {overlays} overlays and a rate of {false_positives:g} needs at least {least} clean "
                f"images, got {len(images)}"
            )
        self.victim = twin(classifier, own_parameters=True)
        self.alpha, self.false_positives = alpha, false_positives
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).to(images.device)
        clean = classifier.as_float(images[order])
        self.register_buffer("targets", torch.empty(0, dtype=torch.int64, device=clean.device))
        self.register_buffer("overlays", clean[:overlays].clone())
        self.register_buffer("entropies", torch.empty(0, device=clean.device))
        self.eval()
        with torch.no_grad():
            self.entropies = self.entropy(clean[overlays:]).sort().values

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """Every network that an image may pass."""
        return (self.victim,)

    def train(self, mode: bool = True) -> Strip:
        """Stays in evaluation mode, as the victim is deployed."""
        return super().train(False)

    def entropy(self, images: Tensor) -> Tensor:
        """The mean entropy of the answers to an image's blends, in nats: float [N]. images: float, [N, C, H, W]."""
        parts = []
        count = len(self.overlays)
        for batch in images.split(max(1, PASS // count)):
            blends = self.alpha * batch[:, None] + (1 - self.alpha) * self.overlays[None]
            logits = self.victim(self.victim.arranged(blends.flatten(0, 1))).float()
            parts.append(torch.distributions.Categorical(logits=logits).entropy().view(len(batch), count).mean(1))
        return torch.cat(parts)

    def forward(self, images: Tensor) -> Decision:
        """Decide on images [N, C, H, W], uint8 or float in [0, 1], maybe none. The score is the share of clean images
        with a higher entropy; flagged is what exceeds 1 - ``false_positives``. Raises ShapeError."""
        if len(images) == 0:
            return Decision.of_nothing(self.targets.device)
        self.victim.require_range(images, SLACK)
        with torch.no_grad():
            x = self.victim.arranged(self.victim.as_float(images))
            labels = self.victim(x).argmax(1)
            lower = torch.searchsorted(self.entropies, self.entropy(x))
            score = 1 - lower.float() / len(self.entropies)
            return Decision(labels, score > 1 - self.false_positives, labels, score)


def check_settings(*, overlays: int = 64, alpha: float = 0.5, false_positives: float = 0.15) -> None:
    """Raise UsageError for settings of ``Strip`` that are out of range."""
    if overlays < 1 or not 0 < alpha < 1 or not 0 < false_positives < 1:
        raise UsageError("STRIP needs at least one overlay, and alpha and false_positives between 0 and 1")
