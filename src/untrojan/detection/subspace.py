"""How much of what a trigger changes inside the network lies outside the subspace of its classes.

What fools a clean classifier moves its inner activations as they differ between classes: to look like a class is all
that there is to do. An attacker's trigger is something of its own, and the network has learnt to see it. So the shift
that a trigger causes in the later layers is split into what lies in the span of the class means, and the rest. That a
trigger alters the distribution of activations is what BNA corrects; here it tells triggers apart. How large the rest
is in a clean classifier depends on its architecture, so it is only ever compared within one network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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
"""Images of a trigger's target among these: without its mean, what makes an image look like it would lie outside."""
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


@dataclass(frozen=True)
class Inside:
    """What triggers change inside: share, from 0 to 1, of the shift outside the class subspace, the mean over the later
    layers; rest: that part of the shift of each layer, float64 [channels] of length 1, one after the other."""

    share: float
    rest: Tensor


def inside(
    searches: Searches,
    triggers: Mapping[Key, tuple[Trigger, Tensor, int | None]],
    images: Tensor,
    labels: Tensor,
) -> dict[Key, Inside]:
    """What each trigger changes in the later layers; none of one that there are no images for, or too few of its
    target, and none at all of a network whose layers cannot be looked at, nor after the deadline.

    triggers: with what they are tried on, bool [N], and the class that they send it to, None for whatever other;
    images: float [N, C, H, W] in [0, 1] that the classifier gets right; labels: int64 [N].
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
    spaces = [None if clean is None else class_subspace(clean, labels) for clean in usual]
    found: dict[Key, Inside] = {}
    for key, (trigger, where, target) in triggers.items():
        shown = where[index].cpu().nonzero()[:SHOWN, 0]
        if not len(shown) or (target is not None and int((labels == target).sum()) < FEWEST):
            continue
        after = _seen(searches.classifier, layers, trigger.stamp(images[shown]))
        each = [
            space.outside((changed - clean[shown]).mean(0))
            for changed, clean, space in zip(after, usual, spaces, strict=True)
            if changed is not None and clean is not None and space is not None
        ]
        told = [one for one in each if one is not None]
        if told:
            share = sum(share for share, _ in told) / len(told)
            found[key] = Inside(round(share, 6), torch.cat([rest for _, rest in told]))
    return found


def cosines(rests: Mapping[int, Tensor], classes: int) -> tuple[float, ...]:
    """The cosine of each two vectors, by class: classes x classes, row by row, NaN where there is none.

    >>> cosines({0: torch.tensor([1.0, 0.0]), 1: torch.tensor([0.0, 2.0])}, 2)
    (1.0, 0.0, 0.0, 1.0)
    """
    table = torch.full((classes, classes), torch.nan, dtype=torch.float64)
    unit = {t: rest.double().flatten() / rest.double().norm().clamp_min(1e-12) for t, rest in rests.items()}
    for t, one in unit.items():
        for u, other in unit.items():
            if one.shape == other.shape:
                table[t, u] = one @ other
    return tuple(round(x, 6) for x in table.flatten().tolist())


@dataclass(frozen=True)
class Subspace:
    """The span of the class means of a layer: scale: float64 [channels], how each varies within a class; directions:
    float64 [n, channels], orthonormal, in units of that."""

    scale: Tensor
    directions: Tensor

    def outside(self, shift: Tensor) -> tuple[float, Tensor] | None:
        """How much of a shift of activations, float [channels], lies outside, as a share of its length, and that part,
        of length 1; None if nothing is shifted."""
        moved = shift.double() / self.scale
        length = float(moved.norm())
        if not MOVED < length < float("inf"):
            return None
        rest = moved - self.directions.T @ (self.directions @ moved)
        return float(rest.norm()) / length, rest / rest.norm().clamp_min(1e-12)


def class_subspace(clean: Tensor, labels: Tensor) -> Subspace | None:
    """The subspace of a layer, channels being measured by how they vary within a class; None if the classes differ in
    as many directions as there are, or nothing varies.

    clean: float [N, channels], of images without a trigger; labels: int64 [N].

    >>> clean, labels = torch.tensor([[0.0, 1, 5], [2, 3, 7], [4, 1, 5], [6, 3, 7]]), torch.tensor([0, 0, 1, 1])
    >>> space = class_subspace(clean, labels)
    >>> round(space.outside(torch.tensor([3.0, 0, 0]))[0], 6), round(space.outside(torch.tensor([3.0, 0, 4]))[0], 6)
    (0.0, 0.8)
    """
    present = labels.unique()
    means = torch.stack([clean[labels == c].double().mean(0) for c in present])
    within = (clean - means[torch.searchsorted(present, labels)]).double().square().mean(0).sqrt()
    alive = within[within > 0]
    if not 1 < len(present) <= clean.shape[1] or not len(alive):
        return None
    scale = within.clamp_min(LEAST * float(alive.median()))
    apart = (means - means.mean(0)) / scale
    _, spread, directions = torch.linalg.svd(apart, full_matrices=False)
    return Subspace(scale, directions[spread > 1e-6 * float(spread.max())])


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
