"""One trigger from all classes into each: what an all-to-one attack's trigger does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from untrojan.detection.effects import Effect
from untrojan.detection.family import TriggerFamily
from untrojan.detection.found import Clean, Key, Results, smaller
from untrojan.detection.inversion import Budget, Inversion, Problem
from untrojan.detection.plan import MANY, TargetWise
from untrojan.detection.ranking import best_ranked
from untrojan.detection.shares import Searches


def search_targets(searches: Searches, family: TriggerFamily, clean: Clean, results: Results, plan: TargetWise) -> None:
    """One trigger from all classes into each; of few classes the smallest of some kinds go on."""
    problems = {t: Problem(x, t) for t in range(clean.classes) if len(x := clean.others(t))}
    few = clean.classes <= MANY
    budget = plan.first[family.kind] if few else plan.of_many
    first = searches.run("all classes into one", family, problems, budget)
    for t, inversion in first.items():
        results.add(Key("target-wise", family.kind, target=t), inversion)
    if few and family.kind in plan.again:
        sizes = {t: i.size for t, i in first.items() if i.size is not None}
        chosen = sorted(sizes, key=lambda t: sizes[t])[: plan.smallest]
        _targets_on(searches, family, clean, results, chosen, plan.again[family.kind])


def refine_targets(
    searches: Searches, families: Mapping[str, TriggerFamily], clean: Clean, results: Results, plan: TargetWise
) -> None:
    """Of many classes the smallest go on, in every kind that any large enough trigger is of."""
    kinds = [kind for kind, family in families.items() if family.complete]
    small = [{t: -math.log(i.size) for t, i in results.targets(kind).items() if i.size} for kind in kinds]
    chosen = best_ranked(small, plan.refined)
    for kind in kinds:
        _targets_on(searches, families[kind], clean, results, chosen, plan.refining)


def search_stuck(
    searches: Searches,
    family: TriggerFamily,
    clean: Clean,
    results: Results,
    sent: Mapping[int, Effect],
    plan: TargetWise,
) -> None:
    """Search once more into the classes whose search was stuck, from the untargeted triggers that say so.

    A search from a random start may stay far above the smallest trigger, an attacker's patch in a corner not being
    found from anywhere. sent: the effect of each untargeted trigger, by its number. What is smaller counts.
    """
    probes = {k.number: i for k, i in results.scope("untargeted", family.kind).items()}
    first = results.targets(family.kind)
    starts: dict[int, Inversion] = {}
    for number, probe in sorted(probes.items(), key=lambda row: row[1].size or math.inf):
        target = None if number not in sent else only_destination(sent[number].sent, plan.alone)
        before = None if target is None else first.get(target)
        if target is None or before is None or probe.size is None:
            continue
        if before.size is None or before.size > plan.stuck * probe.size:
            starts.setdefault(target, probe)
    problems = {t: Problem(clean.others(t), t, start=probe.trigger) for t, probe in starts.items()}
    found = searches.run("all classes into one, again", family, problems, plan.first[family.kind])
    better = [t for t, i in found.items() if smaller(i, first[t])]
    for t in better:
        results.add(Key("target-wise", family.kind, target=t), found[t])
        results.found.pop(Key("target-wise", family.kind, target=t, stage=1), None)
    if family.kind in plan.again:
        _targets_on(searches, family, clean, results, better, plan.again[family.kind])


def only_destination(sent: Tensor, share: float) -> int | None:
    """The class that at least this share of the moved images is sent to, if there is one. sent: int64 [K, K].

    >>> import torch
    >>> only_destination(torch.tensor([[5, 0, 9], [0, 0, 9], [0, 0, 7]]), 0.9), only_destination(torch.eye(3), 0.9)
    (2, None)
    """
    moved = sent.float().clone().fill_diagonal_(0).sum(0)
    return int(moved.argmax()) if float(moved.sum()) > 0 and float(moved.max()) >= share * float(moved.sum()) else None


def _targets_on(
    searches: Searches, family: TriggerFamily, clean: Clean, results: Results, chosen: Sequence[int], budget: Budget
) -> None:
    """Searches into the chosen classes from the triggers that they have, as stage 1; those that find something."""
    first = results.targets(family.kind)
    starts = {t: start for t in chosen if t in first and (start := first[t].trigger) is not None}
    problems = {t: Problem(clean.others(t), t, start=start) for t, start in starts.items()}
    for t, inversion in searches.run("the smallest classes", family, problems, budget).items():
        if inversion.size is not None:
            results.add(Key("target-wise", family.kind, target=t, stage=1), inversion)
