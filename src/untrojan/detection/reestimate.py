"""One trigger for each target that was named, searched again on the images of all its sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from untrojan.detection.inversion import Budget, Problem
from untrojan.detection.localise import Named
from untrojan.detection.plan import FAMILIES
from untrojan.detection.search import Key
from untrojan.detection.shares import Searches
from untrojan.triggers import Trigger


def reestimate(
    searches: Searches,
    chosen: Sequence[Named],
    triggers: Mapping[Key, Trigger],
    images: Tensor,
    labels: Tensor,
    budget: Budget,
) -> dict[tuple[int, str], Trigger]:
    """By target and kind: the trigger that a search from the scan's own ends at, or, where none succeeds, that one.

    triggers: of the rows of the search table. images: float [N, C, H, W] in [0, 1] that the classifier gets right;
    labels: int64 [N].
    """
    found: dict[tuple[int, str], Trigger] = {}
    for one in chosen:
        sources: dict[int, list[int]] = {}
        for member in one.members:
            sources.setdefault(member.target, []).append(member.source)
        kind = one.members[0].kind
        start = _start(one, kind, triggers)
        if start is None:
            continue
        problems = {
            t: Problem(images[torch.isin(labels, torch.tensor(own, device=labels.device))], t, start=start)
            for t, own in sources.items()
            if (t, kind) not in found
        }
        problems = {t: problem for t, problem in problems.items() if len(problem.images)}
        made = searches.run("re-estimating", FAMILIES[kind](), problems, budget)
        for t in sources:
            ended = made[t].trigger if t in made else None
            found.setdefault((t, kind), start if ended is None else ended)
    return found


def _start(one: Named, kind: str, triggers: Mapping[Key, Trigger]) -> Trigger | None:
    """The trigger of the scan that a named hypothesis is about: the last one searched, of the smallest size."""
    source, target = (-1 if c is None else c for c in (one.hypothesis.source, one.hypothesis.target))
    own = [
        key
        for key in triggers
        if (key.scope, key.kind, key.source, key.target) == (one.hypothesis.scope, kind, source, target)
    ]
    ordered = sorted(own, key=lambda key: (-key.stage, triggers[key].size))
    return triggers[ordered[0]] if ordered else None
