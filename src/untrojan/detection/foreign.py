"""How much of what a trigger does inside the network is foreign to its classes.

What fools an honest classifier moves its inner activations as they differ between classes: to look like a class is all
that there is to do. An attacker's trigger is something of its own, and the network has learnt to see it. So the shift
that a trigger causes in the later layers is split into what lies in the directions in which the classes' means differ,
and the rest. That a trigger alters the distribution of activations is what BNA corrects; here it tells triggers apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TypeVar

import torch
from torch import Tensor, nn

from untrojan.classifier.classifier import Classifier
from untrojan.detection.shares import Searches
from untrojan.triggers import Trigger

Key = TypeVar("Key")

LATER = (0.65, 0.95)
"""Which layers are looked at, of those with weights, in the order of a pass: before these an attacker's trigger is not
yet anything of its own, and what the last one sees is almost the classes alone."""
MOST, SHOWN = 500, 50
"""Clean images that the classes' means are of, and images that a trigger is tried on: passes without gradients."""
FEWEST = 3
"""Images of a trigger's target among these: without its mean, what makes an image look like it would be foreign."""
BATCH, SIDE = 128, 64
"""Images of a pass; fewer where they are larger than so many pixels a side."""
MOVED = 0.01
"""A shift that is shorter, in units of how channels vary within a class, is rounding, to 8 bits for one."""
LEAST = 0.1
"""A channel varies within a class by this share of what channels of its layer mostly do, at least: one that is all but
dead would otherwise be all of a shift."""

Seen = Sequence[Tensor | None]
"""Of each layer, float [N, channels], on the CPU: what it is given for each image, the mean over its places; None if
that is not one row for each image."""


def foreign_shares(
    searches: Searches,
    triggers: Mapping[Key, tuple[Trigger, Tensor, int]],
    images: Tensor,
    labels: Tensor,
) -> dict[Key, float]:
    """Of each trigger ``foreign_share``, the mean over the later layers; none of one that there are no images for, or
    too few of its target, and none at all of a network whose layers cannot be looked at, nor after the deadline.

    triggers: with what they are tried on, bool [N], and the class that they send it to; images: float [N, C, H, W] in
    [0, 1] that the classifier gets right; labels: int64 [N].
    """
    if not triggers:
        return {}
    if searches.out_of_time():
        searches.unreached.append("what triggers change inside the network")
        return {}
    layers = _later(searches.classifier, images[:3])
    if not layers:
        return {}
    index = searches.choose("inside", len(images), MOST)
    images, labels = images[index], labels[index].cpu()
    usual = _seen(searches.classifier, layers, images)
    shares: dict[Key, float] = {}
    for key, (trigger, where, target) in triggers.items():
        shown = where[index].cpu().nonzero()[:SHOWN, 0]
        if not len(shown) or int((labels == target).sum()) < FEWEST:
            continue
        after = _seen(searches.classifier, layers, trigger.stamp(images[shown]))
        each = [
            foreign_share((changed - clean[shown]).mean(0), clean, labels)
            for changed, clean in zip(after, usual, strict=True)
            if changed is not None and clean is not None
        ]
        told = [share for share in each if share is not None]
        if told:
            shares[key] = sum(told) / len(told)
    return shares


def foreign_share(shift: Tensor, clean: Tensor, labels: Tensor) -> float | None:
    """How much of a shift of activations, float [channels], lies in no direction in which the means of the classes
    differ: from 0 to 1, as a share of its length, channels being measured by how they vary within a class. None if the
    classes differ in as many directions as there are, or nothing is shifted.

    clean: float [N, channels], of images without a trigger; labels: int64 [N].

    >>> import torch
    >>> clean, labels = torch.tensor([[0.0, 1, 5], [2, 3, 7], [4, 1, 5], [6, 3, 7]]), torch.tensor([0, 0, 1, 1])
    >>> foreign_share(torch.tensor([3.0, 0, 0]), clean, labels), foreign_share(torch.tensor([3.0, 0, 4]), clean, labels)
    (0.0, 0.8)
    """
    present = labels.unique()
    means = torch.stack([clean[labels == c].double().mean(0) for c in present])
    within = (clean - means[torch.searchsorted(present, labels)]).double().square().mean(0).sqrt()
    alive = within[within > 0]
    if not 1 < len(present) <= clean.shape[1] or not len(alive):
        return None
    scale = within.clamp_min(LEAST * float(alive.median()))
    moved = shift.double() / scale
    length = float(moved.norm())
    if not MOVED < length < float("inf"):
        return None
    apart = (means - means.mean(0)) / scale
    _, spread, directions = torch.linalg.svd(apart, full_matrices=False)
    directions = directions[spread > 1e-6 * float(spread.max())]
    return round(float((moved - directions.T @ (directions @ moved)).norm()) / length, 6)


def _later(classifier: Classifier, images: Tensor) -> list[nn.Module]:
    """The layers with weights, of those in ``LATER``, that are given channels of each image."""
    called: dict[nn.Module, None] = {}

    def note(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        if _is_of(given, len(images)):
            called.setdefault(layer)

    weighted = [m for m in classifier.module.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad(), ExitStack() as stack:
        for layer in weighted:
            stack.callback(layer.register_forward_pre_hook(note).remove)
        classifier(classifier.arranged(images))
    order = list(called)
    return [m for i, m in enumerate(order) if LATER[0] < (i + 1) / len(order) <= LATER[1]]


def _seen(classifier: Classifier, layers: Sequence[nn.Module], images: Tensor) -> Seen:
    seen: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers}
    passed: set[nn.Module] = set()
    size = max(1, min(BATCH, BATCH * SIDE**2 // max(1, images.shape[2:].numel())))

    def note(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        if layer not in passed and _is_of(given, len(batch)):  # a layer that is called twice in a pass counts once
            passed.add(layer)
            x = given[0].float()
            seen[layer].append(x.flatten(2).mean(2) if isinstance(layer, nn.Conv2d) else _over_places(x))

    with torch.no_grad(), ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(note).remove)
        for batch in images.split(size):
            passed.clear()
            classifier(classifier.arranged(batch))
    # What follows are small matrices; and a layer may be passed by, or be given the places of all images as rows.
    whole = [parts if sum(map(len, parts)) == len(images) else None for parts in seen.values()]
    return [None if parts is None else torch.cat(parts).cpu() for parts in whole]


def _is_of(given: tuple[Tensor, ...], images: int) -> bool:
    """Whether a layer is given channels of so many images."""
    return bool(given) and isinstance(given[0], Tensor) and given[0].ndim in (2, 3, 4) and len(given[0]) == images


def _over_places(x: Tensor) -> Tensor:
    """What a linear layer is given has its channels last."""
    return x.flatten(1, -2).mean(1) if x.ndim > 2 else x
