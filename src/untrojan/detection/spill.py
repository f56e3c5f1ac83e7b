"""What the trigger of a class pair does to images of all other classes.

An attacker who poisons a single source class teaches the network a trigger that concerns that class alone, and the
smallest one hardly touches the others. What pushes images of a class across to its neighbour by chance also pushes
those of other classes about: in single-source victims of digits (calibration half) the triggers of the oddest other
pairs change the answer to one in seven images of other classes in the median, the attacker's to one in two hundred.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from untrojan.classifier.classifier import Classifier
from untrojan.detection.inversion import Inversion
from untrojan.detection.shares import Searches

Pair = tuple[int, int]

MOST = 500
"""Images that a trigger is tried on: passes without gradients, for each of the refined pairs."""


def spills(searches: Searches, refined: Mapping[Pair, Inversion], images: Tensor, labels: Tensor) -> dict[Pair, float]:
    """Of each pair with a trigger, ``spill`` over the images of neither class; no pair that there are none for, and
    none at all after the deadline.

    images: float [N, C, H, W] in [0, 1] that the classifier gets right; labels: int64 [N].
    """
    found = {pair: i.trigger for pair, i in refined.items() if i.trigger is not None}
    if not found:
        return {}
    if searches.out_of_time():
        searches.unreached.append("what the oddest pairs' triggers do to other classes")
        return {}
    index = searches.choose("spill", len(images), MOST)
    images, labels = images[index], labels[index]
    before = _confidence(searches.classifier, images, labels)
    measured: dict[Pair, float] = {}
    for (source, target), trigger in found.items():
        others = (labels != source) & (labels != target)
        if bool(others.any()):
            after = _confidence(searches.classifier, trigger.stamp(images[others]), labels[others])
            measured[source, target] = spill(before[others], after)
    return measured


def spill(before: Tensor, after: Tensor) -> float:
    """The mean probability that images of other classes lose for their own class. before, after: float [N], without
    and with the trigger. In [0, 1].

    >>> import torch
    >>> round(spill(torch.tensor([0.9, 0.6]), torch.tensor([0.5, 0.8])), 2)
    0.2
    """
    return float((before - after).clamp_min(0).mean())


def _confidence(classifier: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """[N], the probability of each image's own class."""
    return classifier.predict(images).float().softmax(1).gather(1, labels[:, None])[:, 0]
