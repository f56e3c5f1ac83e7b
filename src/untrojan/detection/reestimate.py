"""One trigger for each target that was named, searched again on the images of all its sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from untrojan.detection.found import Key, key_of
from untrojan.detection.inversion import Budget, Problem
from untrojan.detection.localise import Named, row_of
from untrojan.detection.plan import FAMILIES
from untrojan.detection.shares import Searches
from untrojan.detection.table import SearchTable
from untrojan.triggers import Trigger


def reestimate(
    searches: Searches,
    chosen: Sequence[Named],
    table: SearchTable,
    triggers: Mapping[Key, Trigger],
    images: Tensor,
    labels: Tensor,
    budget: Budget,
) -> dict[tuple[int, str], Trigger]:
    """By target and kind: the trigger that a search from the scan's own ends at, or, where none succeeds, that one.

    table, triggers: what the search found, and the triggers of its rows. images: float [N, C, H, W] in [0, 1] that the
    classifier gets right; labels: int64 [N].
    """
    found: dict[tuple[int, str], Trigger] = {}
    for one in chosen:
        sources: dict[int, list[int]] = {}
        for member in one.members:
            sources.setdefault(member.target, []).append(member.source)
        kind = one.members[0].kind
        row = row_of(table, one.hypothesis, kind)
        start = None if row is None else triggers.get(key_of(row))
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
