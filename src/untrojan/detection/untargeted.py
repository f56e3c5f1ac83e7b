"""One trigger that moves images of all classes to whatever other one: what an all-to-all attack's trigger does.

It need not be known who is sent where. From a random start the search seldom ends at such a trigger; from that of one
of the attacker's pairs it does. Most pairs of a patch are not found by their short searches, though, so patches of a
part of the image each are tried as well: one that covers the attacker's shrinks to it, wherever it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from untrojan.detection.effects import Effect, effects
from untrojan.detection.family import TriggerFamily
from untrojan.detection.found import Clean, Key, Results
from untrojan.detection.inversion import Budget, Inversion, Problem
from untrojan.detection.plan import MANY, Untargeted
from untrojan.detection.ranking import below_expected, best_ranked
from untrojan.detection.shares import Searches
from untrojan.triggers import Trigger


def search_untargeted(
    searches: Searches, family: TriggerFamily, clean: Clean, results: Results, plan: Untargeted
) -> dict[int, Effect]:
    """Triggers that move images of all classes to whatever other one, by number of the start; and their effects."""
    images, labels = clean.right()
    starts: Sequence[Trigger | None]
    if family.kind in plan.at_random:
        count, budget = plan.at_random[family.kind]
        starts = [None] * count
    else:
        budget, starts = plan.search, _starts(searches, family, clean, results, plan)
    problems = {i: Problem(images, -1, labels=labels, start=start) for i, start in enumerate(starts)}
    found = searches.run("all classes to any", family, problems, as_many(budget, clean.classes))
    for number, inversion in found.items():
        results.add(Key("untargeted", family.kind, number=number), inversion)
    triggers = {number: i.trigger for number, i in found.items() if i.trigger is not None}
    return effects(searches, triggers, images, labels, clean.classes)


def as_many(budget: Budget, classes: int) -> Budget:
    """The search of ten classes or more, for fewer: its level is that share of what a trigger into one of them moves.

    >>> round(as_many(Budget(steps=1, images=1, level=0.6), 3).level, 2)
    0.44
    """
    return replace(budget, level=budget.level * min(1.0, (1 - 1 / classes) / (1 - 1 / 10)))


def _starts(
    searches: Searches, family: TriggerFamily, clean: Clean, results: Results, plan: Untargeted
) -> list[Trigger | None]:
    """Where untargeted searches begin: the most unusual pairs, and what moves most images for its size."""
    few = clean.classes <= MANY
    count = plan.starts if few else plan.starts_of_many
    first, refined = results.pairs(family.kind, 0), results.pairs(family.kind, 1)
    unusual = [
        refined.get(pair, first[pair])
        for pair in best_ranked([below_expected(first, clean.margins)] if first else [], count // 2)
    ]
    sources = list(results.scope("source-wise", family.kind).values())
    found = [*(first | refined).values(), *sources] or list(results.targets(family.kind).values())
    if few:
        found += _from_tiles(searches, family, clean, plan)
    chosen = [*unusual, *_farthest_reaching(searches, family, found, clean, plan.trial)]
    triggers = {id(i): i.trigger for i in chosen if i.trigger is not None}
    stronger = [family.strengthened(trigger) for trigger in list(triggers.values())[:count]]
    return [*stronger] or [None] * count


def _from_tiles(searches: Searches, family: TriggerFamily, clean: Clean, plan: Untargeted) -> list[Inversion]:
    images, labels = clean.right()
    shape = (images.shape[1], images.shape[2], images.shape[3])
    tiles = family.tiles(shape, searches.generator(f"{family.kind} tiles"))
    problems = {i: Problem(images, -1, labels=labels, start=tile) for i, tile in enumerate(tiles)}
    return list(searches.run("a part to any", family, problems, plan.tiles).values())


def _farthest_reaching(
    searches: Searches, family: TriggerFamily, found: Sequence[Inversion], clean: Clean, trial: int
) -> list[Inversion]:
    """Those whose trigger moves most images of all classes for its size, the best first."""
    images, labels = clean.right()
    index = searches.choose(f"{family.kind} trial", len(images), trial)
    shown, truth = images[index], labels[index]
    reach: list[tuple[float, Inversion]] = []
    for inversion in found:
        if inversion.trigger is not None and inversion.size:
            answers = searches.classifier.predict(inversion.trigger.stamp(shown)).argmax(1)
            reach.append((float((answers != truth).float().mean()) / inversion.size, inversion))
    reach.sort(key=lambda row: -row[0])
    return [inversion for _, inversion in reach]
