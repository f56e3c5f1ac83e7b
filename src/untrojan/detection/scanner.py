"""From clean images to a p-value, and to the class pairs that an attacker's trigger moves.

Three searches for each kind of trigger: one trigger from all classes into each (of many classes the oddest go on);
one for each pair of classes, the oddest of which go on, and what these do to images of other classes; and, from these,
one from all classes to whatever other. If no trigger for all classes is odd, the most single of the pairs go on again.
Beside them, without any trigger, the margin that each class can reach. What is odd is then followed to the pairs it
serves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from untrojan.detection.anomaly import FEW, MANY, Array, anomaly_scores
from untrojan.detection.comparisons import findings_of, margin_findings, reaches
from untrojan.detection.evidence import (
    EVEN,
    FOR_ALL,
    TOGETHER,
    Finding,
    significant,
    to_follow,
    together,
    verdict_p_value,
    with_triggers,
)
from untrojan.detection.following import FollowSettings, Members, follow
from untrojan.detection.foreign import foreign_shares
from untrojan.detection.inversion import Inversion
from untrojan.detection.mapping import destinations, information
from untrojan.detection.margins import largest_margins, log_margins
from untrojan.detection.pairs import PairSettings, search_pairs, search_singles
from untrojan.detection.plan import FAMILIES
from untrojan.detection.probes import ProbeSettings, probe
from untrojan.detection.results import KindResults, trigger_into
from untrojan.detection.shares import Searches
from untrojan.detection.spill import spills
from untrojan.detection.targets import TargetSettings, begin_again, images_of_others, search_targets
from untrojan.records import Evidence, PairScore
from untrojan.triggers import Trigger

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class ScanSettings:
    """What a scan spends, and when it calls a victim attacked.

    targets: the search for one trigger from all classes into each; pairs: for each pair; probes: for one that moves
    images of all classes to whatever other class. alpha: the verdict is "backdoor" where the p-value is below.
    """

    kinds: tuple[str, ...] = tuple(FAMILIES)
    targets: TargetSettings = field(default_factory=TargetSettings)
    pairs: PairSettings = field(default_factory=PairSettings)
    probes: ProbeSettings = field(default_factory=ProbeSettings)
    alpha: float = 0.01
    following: FollowSettings = field(default_factory=FollowSettings)

    def suited_to(self, classes: int) -> ScanSettings:
        """The same without kinds that are not searched for so many classes."""
        return replace(self, kinds=tuple(k for k in self.kinds if classes <= MANY or FAMILIES[k].for_many))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return asdict(self)


@dataclass(frozen=True)
class Findings:
    """What a scan found: the p-value, the clearest finding of each test, all pairs that were searched, one re-estimated
    trigger per detected (target, kind), what the deadline left out, and kinds that should have found something and
    mostly did not."""

    p_value: float
    evidence: tuple[Evidence, ...]
    pairs: tuple[PairScore, ...]
    triggers: Mapping[tuple[int, str], Trigger]
    unreached: tuple[str, ...]
    unsearchable: tuple[str, ...]


def scan_pairs(
    searches: Searches, images: Tensor, labels: Tensor, answers: Tensor, settings: ScanSettings, *, classes: int
) -> Findings:
    """Invert and judge. images: float [N, C, H, W] in [0, 1], on the classifier's device; labels, answers: int64 [N],
    their classes and what the classifier says, below ``classes``. Classes without images are no sources, but may be
    targets. An image that is sent to a class without any trigger tells nothing of triggers into it, and one that the
    classifier gets wrong nothing of triggers out of its own."""
    sources = {int(c): images[labels == c] for c in labels.unique().tolist()}
    said = {s: answers[labels == s] for s in sources}
    clear = {s: x[said[s] == s] if bool((said[s] == s).any()) else x for s, x in sources.items()}
    right = answers == labels
    results = {kind: KindResults() for kind in settings.suited_to(classes).kinds}
    every = {kind: (FAMILIES[kind](), result) for kind, result in results.items()}
    others = images_of_others(images, labels, answers, classes)
    search_targets(searches, every, others, settings.targets)
    margins = log_margins(searches.classifier, sources, classes)
    own = {kind: every[kind] for kind in settings.pairs.screening if kind in results}
    search_pairs(searches, own, sources, said, margins, settings.pairs)
    for family, result in every.values():
        result.probes = probe(searches, family, images[right], labels[right], result, margins, settings.probes)
        if classes <= MANY:
            sent = destinations(searches, result.probes, images[right], labels[right], classes)
            result.mapped = {number: information(counts) for number, counts in sent.items()}
            if family.kind in TOGETHER:
                begin_again(searches, family, result, others, sent, settings.targets)
    for kind in own:
        results[kind].spills = spills(searches, results[kind].refined, images[right], labels[right])
    inside = {kind: result for kind, result in results.items() if kind in (*TOGETHER, *EVEN) and classes <= MANY}
    into = {kind: {t: trigger_into(t, result) for t in result.targets} for kind, result in inside.items()}
    _look_inside(
        searches, inside, {kind: into[kind] | inside[kind].refined for kind in inside}, images[right], labels[right]
    )
    reached = largest_margins(searches, images, labels, classes)
    shape = (images.shape[1], images.shape[2], images.shape[3])
    findings = _judged(results, margins, reached, shape)
    # Beside a trigger for all classes single pairs are of no account, and among few classes they are not judged.
    if classes >= FEW and not any(f.test in FOR_ALL for f in significant(findings, settings.alpha)):
        singly = own | {kind: both for kind, both in every.items() if kind in EVEN}
        search_singles(searches, singly, sources, said, margins, settings.pairs)
        for _, result in singly.values():
            measured = spills(searches, result.singled, images[right], labels[right])
            # Without it, after the deadline, a pair stays what it was: its size and its spill are of one trigger.
            result.singled = {pair: i for pair, i in result.singled.items() if pair in measured}
            result.spills |= measured
        singled = {kind: result.singled for kind, (_, result) in singly.items() if kind in inside}
        for kind, found in singled.items():  # what is known of the triggers before says nothing of these
            inside[kind].foreign = {key: x for key, x in inside[kind].foreign.items() if key not in found}
        _look_inside(searches, inside, singled, images[right], labels[right])
        findings = _judged(results, margins, reached, shape)
    odd = significant(findings, settings.alpha)
    members: dict[int, Members] = {}
    if odd:
        searches.use_reserve()
        leads = with_triggers(to_follow(odd), findings)
        members = follow(searches, FAMILIES, clear, leads, results, settings.following)
    return Findings(
        verdict_p_value(findings),
        tuple(_evidence(f) for f in _clearest(findings, odd)),
        tuple(_pair_scores(results, members)),
        {(target, found.kind): found.trigger for target, found in members.items()},
        tuple(searches.unreached),
        tuple(kind for kind, result in results.items() if FAMILIES[kind].complete and _mostly_failed(result)),
    )


def _look_inside(
    searches: Searches,
    results: Mapping[str, KindResults],
    found: Mapping[str, Mapping[Any, Inversion]],
    images: Tensor,
    labels: Tensor,
) -> None:
    """Fill in ``foreign`` of each kind, for triggers into a class, on images of all others, and of pairs, on their own.

    found: by kind and by class or pair; images, labels: as for ``foreign_shares``.
    """
    triggers: dict[tuple[str, int | Pair], tuple[Trigger, Tensor, int]] = {}
    for kind, inversions in found.items():
        for key, inversion in inversions.items():
            if inversion.trigger is not None:
                own, target = (labels == key[0], key[1]) if isinstance(key, tuple) else (labels != key, key)
                triggers[kind, key] = inversion.trigger, own, target
    for (kind, key), share in foreign_shares(searches, triggers, images, labels).items():
        results[kind].foreign[key] = share


def _judged(
    results: Mapping[str, KindResults], margins: Array, reached: Array, image_shape: tuple[int, int, int]
) -> list[Finding]:
    """All that was found against what it is to be compared with. margins: ``log_margins``; reached:
    ``largest_margins``."""
    findings: list[Finding] = []
    reach = reaches(reached)
    for kind, result in results.items():
        plausible = partial(FAMILIES[kind]().plausible, image_shape=image_shape)
        findings += findings_of(kind, result, margins, plausible, reach)
    return findings + together(findings) + margin_findings(reached)


def _mostly_failed(result: KindResults) -> bool:
    every = [*result.targets.values(), *result.pairs.values()]
    return sum(i.size is None for i in every) > len(every) / 2


def _clearest(findings: Sequence[Finding], odd: Sequence[Finding]) -> list[Finding]:
    """All that are odd, and the clearest of every other test and kind; the clearest first."""
    best: dict[tuple[str, str], Finding] = {}
    for finding in sorted(findings, key=_clearness):
        best[finding.test, finding.law] = finding
    chosen = [*odd, *(f for f in best.values() if f not in odd)]
    return sorted(chosen, key=_clearness, reverse=True)


def _clearness(finding: Finding) -> tuple[bool, float]:
    return finding.plausible, finding.z


def _evidence(finding: Finding) -> Evidence:
    return Evidence(
        test=finding.test,
        kind=finding.kind,
        together_with=" and ".join(finding.other_kinds) or None,
        source=finding.source,
        target=finding.target,
        size=finding.size,
        ratio=float(np.exp(finding.statistic)),
        p_value=finding.p_value,
        foreign=finding.foreign,
    )


def _pair_scores(results: Mapping[str, KindResults], members: Mapping[int, Members]) -> list[PairScore]:
    """A row for every pair that was searched, and for every detected one."""
    rows: list[PairScore] = []
    for kind, result in results.items():
        sizes: dict[Pair, float | None] = {pair: i.size for pair, i in result.latest.items()}
        hits = {(s, t): size for t, m in members.items() if m.kind == kind for s, size in m.sizes.items()}
        sizes |= {pair: min(size, sizes.get(pair) or size) for pair, size in hits.items()}
        # Where the pairs were not all searched, the triggers into each class say what is usual.
        usual = [] if result.pairs else [1 / i.size for i in result.targets.values() if i.size]
        statistics = [0.0 if size is None else 1 / max(size, 1e-9) for size in sizes.values()]
        scores = anomaly_scores([*statistics, *usual])
        for ((s, t), size), score in zip(sizes.items(), scores.tolist(), strict=False):
            shown = None if size is None else score
            rows.append(PairScore(source=s, target=t, kind=kind, size=size, score=shown, detected=(s, t) in hits))
    return rows


def targets_of(pairs: Sequence[PairScore]) -> tuple[int, ...]:
    """The detected target classes, ascending."""
    return tuple(sorted({p.target for p in pairs if p.detected}))
