"""From clean images to a search table. Every phase takes what the phases before it found; none looks at a verdict.

One trigger from all classes into each; one for each pair of classes, of which the most unusual go on; and, from these
and from parts of the image, one from all classes to whatever other. What goes on is chosen by rank (``ranking``). At
the end every trigger that counts is tried on images of all classes (``effects``) and looked at inside (``subspace``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from untrojan.detection.effects import Effect, effects
from untrojan.detection.found import Clean, Key, Results
from untrojan.detection.inversion import Inversion
from untrojan.detection.margins import largest_margins, log_margins
from untrojan.detection.pair_wise import search_pairs, search_singled
from untrojan.detection.plan import FAMILIES, MANY, SearchPlan
from untrojan.detection.shares import Searches
from untrojan.detection.subspace import Inside, cosines, inside
from untrojan.detection.table import Found, Likeness, Network, SearchTable
from untrojan.detection.target_wise import refine_targets, search_stuck, search_targets
from untrojan.detection.untargeted import search_untargeted
from untrojan.triggers import Trigger

CHANGED = 20
"""Images on which it is seen what triggers change."""


@dataclass(frozen=True)
class Searched:
    """A search table, and the triggers of its rows that have one."""

    table: SearchTable
    triggers: Mapping[Key, Trigger]


def search(
    searches: Searches, network: Network, images: Tensor, labels: Tensor, answers: Tensor, plan: SearchPlan
) -> Searched:
    """Run a plan.

    network: from ``describe``, of all clean images; its ``reach`` is filled in. images: to search on, float [N, C,
    H, W] in [0, 1], on the classifier's device; labels, answers: int64 [N], below the number of classes. The table
    names neither version nor victim: the caller knows them.
    """
    classes = network.classes
    sources = {int(c): images[labels == c] for c in labels.unique().tolist()}
    margins = log_margins(searches.classifier, sources, classes)
    clean = Clean(images, labels, answers, classes, margins)
    plan, results = plan.suited_to(classes), Results()
    families = {kind: FAMILIES[kind]() for kind in plan.kinds}
    for family in families.values():
        search_targets(searches, family, clean, results, plan.target_wise)
    if classes > MANY:
        refine_targets(searches, families, clean, results, plan.target_wise)
    losses = search_pairs(searches, families, clean, results, plan.pair_wise)
    for family in families.values():
        sent = search_untargeted(searches, family, clean, results, plan.untargeted)
        if classes <= MANY and family.kind in plan.pair_wise.first:
            search_stuck(searches, family, clean, results, sent, plan.target_wise)
    search_singled(searches, families, clean, results, losses, plan.pair_wise)
    searches.use_reserve()  # what follows are forward passes, without which the table says little
    measured = effects(
        searches, {k: t for k, t in _triggers(results).items() if _counts(k, results, classes)}, *clean.right(), classes
    )
    seen = look_inside(searches, clean, results)
    reach = tuple(largest_margins(searches, images, labels, classes).tolist())
    rows = tuple(_row(key, i, measured.get(key), seen.get(key)) for key, i in results.found.items())
    alike = tuple(_likeness(kind, results, seen, clean) for kind in plan.kinds)
    table = SearchTable(replace(network, reach=reach), rows, alike, tuple(searches.unreached), seed=searches.seed)
    return Searched(table, _triggers(results))


def look_inside(searches: Searches, clean: Clean, results: Results) -> dict[Key, Inside]:
    """What the triggers change inside: of those into a class, of the refined pairs, and of the untargeted ones."""
    images, labels = clean.right()
    asked: dict[Key, tuple[Trigger, Tensor, int | None]] = {}
    for key, trigger in _triggers(results).items():
        if _counts(key, results, clean.classes):
            among = labels != key.target if key.source < 0 else labels == key.source
            asked[key] = trigger, among, key.target if key.target >= 0 else None
    return inside(searches, asked, images, labels)


def _triggers(results: Results) -> dict[Key, Trigger]:
    return {key: i.trigger for key, i in results.found.items() if i.trigger is not None}


def _counts(key: Key, results: Results, classes: int) -> bool:
    """Whether a trigger is tried out: not the first of every pair, and of many classes only what was refined."""
    if key.scope == "pair-wise":
        return key.stage > 0 or key.kind == "blend"
    if key.scope == "target-wise" and classes > MANY:
        refined = {k.target for k in results.found if k.scope == "target-wise" and k.stage > 0}
        return key.target in refined
    return key.scope != "source-wise"


def _row(key: Key, inversion: Inversion, effect: Effect | None, seen: Inside | None) -> Found:
    pair = key.source >= 0 and key.target >= 0
    return Found(
        scope=key.scope,
        kind=key.kind,
        size=inversion.size,
        success=inversion.success,
        steps=inversion.steps,
        source=key.source if key.source >= 0 else None,
        target=key.target if key.target >= 0 else None,
        number=key.number,
        stage=key.stage,
        off_subspace=None if seen is None else seen.share,
        off_target=_finite(effect.off_target(key.source, key.target)) if effect is not None and pair else None,
        sent=None if effect is None else tuple(effect.sent.flatten().tolist()),
    )


def _likeness(kind: str, results: Results, seen: Mapping[Key, Inside], clean: Clean) -> Likeness:
    """Of the target-wise triggers as they ended; what they change in the image is the mean over some clean ones."""
    last = {k.target: k for k in sorted(results.scope("target-wise", kind), key=lambda k: k.stage)}
    triggers, shown = _triggers(results), clean.images[:: max(1, len(clean.images) // CHANGED)]
    changes = {t: (triggers[k].apply(shown) - shown).mean(0).cpu() for t, k in last.items() if k in triggers}
    rests = {t: seen[k].rest for t, k in last.items() if k in seen}
    return Likeness(kind, cosines(changes, clean.classes), cosines(rests, clean.classes))


def _finite(value: float | None) -> float | None:
    """None for what a network made of a stamped image that it cannot answer."""
    return value if value is not None and math.isfinite(value) else None
