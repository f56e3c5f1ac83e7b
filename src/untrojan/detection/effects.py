"""What triggers do to images of all classes: where each class goes, and what other classes lose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from untrojan.classifier import Classifier
from untrojan.data.split import balanced_sample
from untrojan.detection.shares import Searches
from untrojan.triggers import Trigger

Key = TypeVar("Key")

SHOWN = 200
"""Images that a trigger is tried on: forward passes alone, for some hundred triggers."""


@dataclass(frozen=True)
class Effect:
    """sent: int64 [K, K], how many images of each class (rows) are taken for each (columns) with the trigger; lost:
    float [K], the mean probability that images of each class lose for their own class, NaN without images."""

    sent: Tensor
    lost: Tensor
    shown: Tensor

    def off_target(self, source: int, target: int) -> float | None:
        """What images of neither class lose on average, from 0 to 1; None if there are none."""
        others = torch.tensor([c not in (source, target) for c in range(len(self.lost))]) & (self.shown > 0)
        if not bool(others.any()):
            return None
        return float((self.lost * self.shown)[others].sum() / self.shown[others].sum())


def effects(
    searches: Searches, triggers: Mapping[Key, Trigger], images: Tensor, labels: Tensor, classes: int
) -> dict[Key, Effect]:
    """The effect of each trigger on the same images; none at all after the deadline.

    images: float [N, C, H, W] in [0, 1] that the classifier gets right; labels: int64 [N], below ``classes``.
    """
    if not triggers:
        return {}
    if searches.out_of_time():
        searches.unreached.append("what the triggers do to each class")
        return {}
    index = balanced_sample(labels.cpu(), min(SHOWN, len(labels)), searches.seed).to(labels.device)
    images, labels = images[index], labels[index]
    before, _ = _answers(searches.classifier, images, labels)
    shown = torch.bincount(labels, minlength=classes).cpu()
    found: dict[Key, Effect] = {}
    for key, trigger in triggers.items():
        after, answers = _answers(searches.classifier, trigger.stamp(images), labels)
        sent = torch.bincount(labels * classes + answers, minlength=classes**2).view(classes, classes)
        lost = torch.zeros(classes).index_add_(0, labels.cpu(), (before - after).clamp_min(0).cpu())
        found[key] = Effect(sent.cpu(), lost / shown, shown)
    return found


def _answers(classifier: Classifier, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """float [N], the probability of each image's own class, and int64 [N], the answers."""
    logits = classifier.predict(images).float()
    return logits.softmax(1).gather(1, labels[:, None])[:, 0], logits.argmax(1)
