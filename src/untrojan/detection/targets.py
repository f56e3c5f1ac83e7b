"""One trigger from all classes into each: what an all-to-one attack's trigger does.

Where a short search ends depends on chance (and on the processor's rounding). With many classes the smallest of so many
is small by luck, and the oddest of them go on, on more images. With few the smallest patches are searched on as well,
and how far apart they are the second time counts as much as the first.

A search from a random start may also stay far above the smallest trigger, an attacker's patch in a corner not being
found from anywhere. With few classes it is begun again where one of the triggers that move all classes to whatever
other one (``probes``) sends them all to this one, and is far smaller.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from untrojan.detection.anomaly import MANY, oddest
from untrojan.detection.comparisons import target_values
from untrojan.detection.evidence import TOGETHER
from untrojan.detection.inversion import Budget, Inversion, Problem, TriggerFamily
from untrojan.detection.mapping import only_destination
from untrojan.detection.results import KindResults
from untrojan.detection.shares import Searches


@dataclass(frozen=True, kw_only=True)
class TargetSettings:
    """screening: the search for every class; of_few: that of each kind where there are at most ``MANY`` classes;
    refined: how many of the classes go on where there are more, the same for either of the kinds that are judged
    together; refining: their search, from the trigger of the first; again: of few classes the kinds that are searched
    on, and how, for the ``smallest``. stuck: a search is begun again if a trigger for all classes to any, of which
    ``alone`` go to its class, is smaller by this factor.

    Of few classes: an attacker's patch moves nine in ten images as easily as three in four, an honest one has to grow
    for it; a perturbation's search comes to its end in larger steps only; and an attacker's warp is a fraction of any
    honest one, even on eight images.
    """

    screening: Budget = field(default_factory=lambda: Budget(steps=50, images=20, level=0.75))
    of_few: Mapping[str, Budget] = field(
        default_factory=lambda: {
            "patch": Budget(steps=50, images=20, level=0.9),
            "additive": Budget(steps=50, images=20, level=0.75, pace=1.5),
            "warp": Budget(steps=50, images=8, level=0.75),
            "blend": Budget(steps=30, images=20, level=0.75),
        }
    )
    refined: int = 8
    refining: Budget = field(default_factory=lambda: Budget(steps=50, images=40, level=0.75, patience=50))
    smallest: int = 3
    again: Mapping[str, Budget] = field(
        default_factory=lambda: {"patch": Budget(steps=40, images=24, level=0.95, patience=40)}
    )
    stuck: float = 2.0
    alone: float = 0.95


def images_of_others(images: Tensor, labels: Tensor, answers: Tensor, classes: int) -> dict[int, Tensor]:
    """By target, the images of other classes that are not sent to it anyway, since these tell nothing of triggers."""
    return {t: images[(labels != t) & (answers != t)] for t in range(classes)}


def search_targets(
    searches: Searches,
    results: Mapping[str, tuple[TriggerFamily, KindResults]],
    others: Mapping[int, Tensor],
    settings: TargetSettings,
) -> None:
    """Fill in the targets of each kind, and, of many classes, the refined ones.

    others: from ``images_of_others``.
    """
    problems = {t: Problem(x, t) for t, x in others.items() if len(x)}
    few = len(others) <= MANY
    for family, result in results.values():
        budget = settings.of_few.get(family.kind, settings.screening) if few else settings.screening
        result.targets = searches.run("all classes into one", family, problems, budget)
        if few and family.kind in settings.again:
            sizes = {t: i.size for t, i in result.targets.items() if i.size is not None}
            chosen = sorted(sizes, key=lambda t: sizes[t])[: settings.smallest]
            result.refined_targets = _on(searches, family, result, others, chosen, settings.again[family.kind])
    if few:
        return
    both = [results[kind] for kind in TOGETHER if kind in results]
    odd = oddest([target_values(result, many=True) for _, result in both], settings.refined)
    for family, result in both:
        result.refined_targets = _on(searches, family, result, others, odd, settings.refining)


def begin_again(
    searches: Searches,
    family: TriggerFamily,
    result: KindResults,
    others: Mapping[int, Tensor],
    sent: Mapping[int, Tensor],
    settings: TargetSettings,
) -> None:
    """Search once more into the classes whose search was stuck, from the probes that say so; what is smaller counts.

    others: from ``images_of_others``, of few classes; sent: from ``destinations``, of ``result.probes``.
    """
    starts: dict[int, Inversion] = {}
    for number, probe in sorted(result.probes.items(), key=lambda row: row[1].size or math.inf):
        target = only_destination(sent[number], settings.alone) if number in sent else None
        before = None if target is None else result.targets.get(target)
        if target is None or before is None or probe.size is None:
            continue
        if before.size is None or before.size > settings.stuck * probe.size:
            starts.setdefault(target, probe)
    problems = {t: Problem(others[t], t, start=probe.trigger) for t, probe in starts.items()}
    budget = settings.of_few.get(family.kind, settings.screening)
    found = searches.run("all classes into one, again", family, problems, budget)
    smaller = {t: i for t, i in found.items() if _smaller(i, result.targets[t])}
    result.targets |= smaller
    if family.kind in settings.again:
        once_more = _on(searches, family, result, others, list(smaller), settings.again[family.kind])
        earlier = result.refined_targets
        best = {t: earlier[t] if t in earlier and _smaller(earlier[t], i) else i for t, i in once_more.items()}
        # What had been searched on from where it was stuck goes.
        result.refined_targets = {t: i for t, i in earlier.items() if t not in smaller} | best


def _smaller(one: Inversion, other: Inversion) -> bool:
    return one.size is not None and (other.size is None or one.size < other.size)


def _on(
    searches: Searches,
    family: TriggerFamily,
    result: KindResults,
    others: Mapping[int, Tensor],
    chosen: Sequence[int],
    budget: Budget,
) -> dict[int, Inversion]:
    """The searches into the chosen classes that found something, from the triggers that they have."""
    starts = {t: found.trigger for t in chosen if (found := result.targets.get(t))}
    problems = {t: Problem(others[t], t, start=start) for t, start in starts.items() if start is not None}
    refined = searches.run("the oddest classes", family, problems, budget)
    return {t: found for t, found in refined.items() if found.size is not None}
