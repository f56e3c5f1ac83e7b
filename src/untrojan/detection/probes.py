"""One trigger that moves images of all classes to whatever other one: what an all-to-all trigger does.

It need not be known who is sent where. From a random start the search seldom ends at an all-to-all trigger that works
on two thirds of the images; from the trigger of one of the attacker's pairs it does, and from that of two classes that
are merely alike it ends at something large. Most pairs of a patch are not found by their short searches, though, so
patches of a part of the image each are tried as well, on all classes together: one that covers the attacker's
shrinks to it, wherever it lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from untrojan.detection.anomaly import MANY, Array
from untrojan.detection.comparisons import findings_of
from untrojan.detection.inversion import Budget, Inversion, Problem, TriggerFamily
from untrojan.detection.null import CLASSES
from untrojan.detection.results import KindResults, inversion_of
from untrojan.detection.shares import Searches
from untrojan.triggers import Trigger


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """tiles: the search from each part of the image, where there are at most ``MANY`` classes; search: the one that
    counts, from ``starts`` triggers of pairs, sources or parts, or ``starts_of_many``, the oddest and those that move
    most of ``trial`` images for their size, or from random ones for a kind that has none; from_anywhere: the search of
    kinds that end at the same size from whatever start, of which one is enough."""

    starts: int = 4
    starts_of_many: int = 5
    trial: int = 40
    tiles: Budget = field(default_factory=lambda: Budget(steps=20, images=8, level=0.35, pace=3.0))
    search: Budget = field(default_factory=lambda: Budget(steps=50, images=24, level=0.6, patience=40))
    from_anywhere: Mapping[str, Budget] = field(
        default_factory=lambda: {"blend": Budget(steps=30, images=24, level=0.6, patience=30)}
    )


def probe(
    searches: Searches,
    family: TriggerFamily,
    images: Tensor,
    labels: Tensor,
    result: KindResults,
    margins: Array,
    settings: ProbeSettings,
) -> dict[int, Inversion]:
    """By number of the start. images: float [N, C, H, W] in [0, 1], of all classes, that the classifier gets right;
    labels: int64 [N]; margins: float64 [K, K], as from ``log_margins``; result: what this kind's searches found."""
    if family.kind in settings.from_anywhere:
        anew = {0: Problem(images, -1, labels=labels)}
        budget = of_as_many(settings.from_anywhere[family.kind], len(margins))
        return searches.run("all classes to any", family, anew, budget)
    count = settings.starts_of_many if len(margins) > MANY else settings.starts
    starts: list[Trigger | None] = [None] * count
    if result.pairs or result.sources:
        findings = findings_of(family.kind, result, margins)
        alone = [f for f in sorted(findings, key=lambda f: -f.value) if f.test in ("pair", "source")]
        oddest = [inversion_of(f, result) for f in alone[: count // 2]]
        found = [*result.latest.values(), *result.sources.values()]
        if len(margins) <= MANY:
            found += _from_tiles(searches, family, images, labels, settings)
        chosen = [*oddest, *_farthest_reaching(searches, family, found, images, labels, settings)]
        triggers = {id(i): i.trigger for i in chosen if i.trigger is not None}
        starts = [family.strengthened(trigger) for trigger in list(triggers.values())[:count]]
    problems = {i: Problem(images, -1, labels=labels, start=start) for i, start in enumerate(starts)}
    return searches.run("all classes to any", family, problems, of_as_many(settings.search, len(margins)))


def of_as_many(budget: Budget, classes: int) -> Budget:
    """The search of ten classes or more, for fewer: its level is that share of what a trigger into one of them moves.

    >>> round(of_as_many(Budget(steps=1, images=1, level=0.6), 3).level, 2)
    0.44
    """
    return replace(budget, level=budget.level * min(1.0, (1 - 1 / classes) / (1 - 1 / CLASSES)))


def _from_tiles(
    searches: Searches, family: TriggerFamily, images: Tensor, labels: Tensor, settings: ProbeSettings
) -> list[Inversion]:
    shape = (images.shape[1], images.shape[2], images.shape[3])
    tiles = family.tiles(shape, searches.generator(f"{family.kind} tiles"))
    problems = {i: Problem(images, -1, labels=labels, start=tile) for i, tile in enumerate(tiles)}
    return list(searches.run("a part to any", family, problems, settings.tiles).values())


def _farthest_reaching(
    searches: Searches,
    family: TriggerFamily,
    found: Sequence[Inversion],
    images: Tensor,
    labels: Tensor,
    settings: ProbeSettings,
) -> list[Inversion]:
    """Those whose trigger moves most images of all classes for its size, the best first."""
    index = searches.choose(f"{family.kind} trial", len(images), settings.trial)
    shown, truth = images[index], labels[index]
    reach: list[tuple[float, Inversion]] = []
    for inversion in found:
        if inversion.trigger is not None and inversion.size:
            answers = searches.classifier.predict(inversion.trigger.stamp(shown)).argmax(1)
            reach.append((float((answers != truth).float().mean()) / inversion.size, inversion))
    reach.sort(key=lambda row: -row[0])
    return [inversion for _, inversion in reach]
