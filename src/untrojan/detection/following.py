"""From an odd trigger to the class pairs that it serves, and to one trigger per target class."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from untrojan.detection.evidence import EVEN, Finding
from untrojan.detection.inversion import Budget, Inversion, Problem, TriggerFamily
from untrojan.detection.results import KindResults, inversion_of
from untrojan.detection.shares import Searches
from untrojan.triggers import Trigger

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class FollowSettings:
    """How an odd trigger is followed.

    leads: at most so many triggers are followed; moved: share of a class's images that a trigger must move for the pair
    to be looked at; pairs: the search for such a pair, started from the trigger; growth: a pair that needs a trigger so
    many times as large does not share it; pooled: the re-estimation for a target from all its sources.
    """

    leads: int = 12
    moved: float = 0.25
    shown: int = 50
    pairs: Budget = field(default_factory=lambda: Budget(steps=35, images=10, level=0.5))
    growth: float = 3.0
    pooled: Budget = field(default_factory=lambda: Budget(steps=38, images=14, level=0.7, patience=38))


@dataclass(frozen=True)
class Members:
    """The sources of a target with the size of a trigger for each, and the trigger that serves them all."""

    kind: str
    sizes: Mapping[int, float]
    trigger: Trigger


@dataclass(frozen=True)
class Lead:
    """An odd trigger, and for each pair that it moves the share of images moved; ``stronger``: the same of a stronger
    trigger for all classes, for what ``moves`` leaves."""

    finding: Finding
    trigger: Trigger
    moves: Mapping[Pair, float]
    stronger: Mapping[Pair, float] = field(default_factory=dict)

    @property
    def limit(self) -> float:
        """The size up to which a pair's trigger may be this one: half-way, as logarithms, to what is usual."""
        return self.finding.size * math.exp(max(self.finding.value, 0.0) / 2)


def follow(
    searches: Searches,
    families: Mapping[str, type[TriggerFamily]],
    sources: Mapping[int, Tensor],
    odd: Sequence[Finding],
    results: Mapping[str, KindResults],
    settings: FollowSettings,
) -> dict[int, Members]:
    """The detected targets. ``odd``: the significant findings, the clearest first."""
    leads = [
        _lead(searches, families[f.kind](), sources, f, trigger, settings)
        for f in _distinct(odd)[: settings.leads]
        if (trigger := inversion_of(f, results[f.kind]).trigger) is not None
    ]
    chosen = explained(leads)
    members: dict[int, Members] = {}
    for kind in sorted({lead.finding.kind for lead in chosen.values()}):
        family, result = families[kind](), results[kind]
        own = {pair: lead for pair, lead in chosen.items() if lead.finding.kind == kind}
        joint = {t: lead for (_, t), lead in own.items() if lead.finding.test == "target"}
        for target, lead in joint.items():
            sizes = {s: _least(lead.finding.size, result.latest.get((s, t))) for s, t in own if t == target}
            members[target] = Members(kind, sizes, lead.trigger)
        rest = {pair: lead for pair, lead in own.items() if pair[1] not in joint}
        members |= _shared(searches, family, sources, rest, settings)
    return members


def _distinct(odd: Sequence[Finding]) -> list[Finding]:
    """One finding, the clearest, for each trigger: it may be odd alone and together with another kind's."""
    first: dict[tuple[object, ...], Finding] = {}
    for f in odd:
        first.setdefault((f.test, f.kind, f.source, f.target, f.number), f)
    return list(first.values())


def _lead(
    searches: Searches,
    family: TriggerFamily,
    sources: Mapping[int, Tensor],
    finding: Finding,
    trigger: Trigger,
    settings: FollowSettings,
) -> Lead:
    # The smallest trigger for some classes is too weak for others; a warp, made stronger, may be another one.
    target = finding.target if finding.test == "target" else None
    moves = _moves(searches, trigger, sources, settings, target)
    stronger = _moves(searches, family.strengthened(trigger), sources, settings, target)
    if finding.test == "mixed":
        return Lead(finding, trigger, moves, stronger)
    moves |= stronger
    if finding.source is not None and finding.target is not None:
        moves[finding.source, finding.target] = 1.0
    return Lead(finding, trigger, moves)


def _moves(
    searches: Searches,
    trigger: Trigger,
    sources: Mapping[int, Tensor],
    settings: FollowSettings,
    target: int | None = None,
) -> dict[Pair, float]:
    """Where the trigger sends most images of each class that leave it (or ``target``), if enough of them go there."""
    moves: dict[Pair, float] = {}
    for source, images in sources.items():
        logits = searches.classifier.predict(trigger.stamp(images[: settings.shown]))
        counts = torch.bincount(logits.argmax(1), minlength=logits.shape[1]).float() / len(logits)
        counts[source] = 0
        goal = int(counts.argmax()) if target is None else target
        if source != goal and float(counts[goal]) >= settings.moved:
            moves[source, goal] = float(counts[goal])
    return moves


def explained(leads: Sequence[Lead]) -> dict[Pair, Lead]:
    """The lead that explains each pair.

    A patch can also be written as a perturbation, if a larger one, and the other way round: a target belongs to the
    kind whose evidence for it is the clearest. A blend is the coarsest description, which many a faint perturbation
    fits, and comes last. Within a kind a trigger from all classes into the target explains all its pairs. A class that
    no trigger moves may be moved by a stronger one.
    """
    joint = {lead.finding.target for lead in leads if lead.finding.test == "target"}
    # Blends last, and otherwise the clearest first.
    leads = sorted((lead for lead in leads if not _repeats(lead, joint)), key=lambda lead: lead.finding.kind in EVEN)
    kinds: dict[int, str] = {}
    for lead in leads:
        for _, target in lead.moves:
            kinds.setdefault(target, lead.finding.kind)
    chosen: dict[Pair, Lead] = {}
    for lead in sorted(leads, key=lambda lead: lead.finding.test != "target"):
        for pair in lead.moves:
            if lead.finding.kind == kinds[pair[1]]:
                chosen.setdefault(pair, lead)
    moved = {source for source, _ in chosen}
    for lead in leads:
        for source, target in lead.stronger:
            if source not in moved and lead.finding.kind == kinds.setdefault(target, lead.finding.kind):
                chosen[source, target] = lead
                moved.add(source)
    return chosen


def _repeats(lead: Lead, joint: Collection[int | None]) -> bool:
    """Whether a trigger sends most classes to a target that is known, from a trigger of whatever kind: then what else
    it does to single classes is no other attack, be it one for all or one for a pair."""
    known = sum(target in joint for _, target in lead.moves)
    return lead.finding.test != "target" and 2 * known >= len(lead.moves)


def _shared(
    searches: Searches,
    family: TriggerFamily,
    sources: Mapping[int, Tensor],
    candidates: Mapping[Pair, Lead],
    settings: FollowSettings,
) -> dict[int, Members]:
    """The pairs whose own trigger, searched from the lead's, is as small as that; and one trigger for each target."""
    problems = {(s, t): Problem(sources[s], t, start=lead.trigger) for (s, t), lead in candidates.items()}
    found = searches.run("following up", family, problems, settings.pairs)
    sizes: dict[int, dict[int, float]] = {}
    for (s, t), inversion in found.items():
        lead = candidates[s, t]
        limit = min(lead.limit, settings.growth * lead.finding.size)
        if inversion.size is not None and inversion.size <= limit:
            sizes.setdefault(t, {})[s] = inversion.size
    pooled = _pooled(searches, family, sources, {t: list(own) for t, own in sizes.items()}, found, settings, "joint")
    # The false-pair test (BNA, Apdx C): if the joint trigger is far larger than that of each source alone, they do not
    # share one; then the clearest pair stays alone.
    doubtful = {}
    for target, own in sizes.items():
        joint = pooled[target].size if target in pooled else None
        if len(own) > 1 and (joint is None or joint > settings.growth * max(own.values())):
            doubtful[target] = min(own, key=lambda s: own[s])
    pooled |= _pooled(searches, family, sources, {t: [s] for t, s in doubtful.items()}, found, settings, "single")
    members: dict[int, Members] = {}
    for target, own in sizes.items():
        kept = {doubtful[target]: own[doubtful[target]]} if target in doubtful else own
        first = found[next(iter(kept)), target].trigger
        trigger = pooled[target].trigger if target in pooled else None
        if (best := trigger or first) is not None:
            members[target] = Members(family.kind, kept, best)
    return members


def _pooled(
    searches: Searches,
    family: TriggerFamily,
    sources: Mapping[int, Tensor],
    members: Mapping[int, Sequence[int]],
    found: Mapping[Pair, Inversion],
    settings: FollowSettings,
    name: str,
) -> dict[int, Inversion]:
    problems = {
        t: Problem(torch.cat([sources[s] for s in ss]), t, start=found[ss[0], t].trigger) for t, ss in members.items()
    }
    return searches.run(f"re-estimating, {name}", family, problems, settings.pooled)


def _least(size: float, other: Inversion | None) -> float:
    return size if other is None or other.size is None else min(size, other.size)
