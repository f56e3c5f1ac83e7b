"""From clean images to anomalous class pairs: every pair, every kind of trigger, then each suspect target again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from untrojan.classifier.classifier import Classifier
from untrojan.detection.additive import AdditiveFamily
from untrojan.detection.anomaly import Thresholds, anomaly_scores, judge, statistics_of
from untrojan.detection.inversion import Budget, Inversion, Problem, TriggerFamily, invert
from untrojan.detection.patch import PatchFamily
from untrojan.progress import Progress
from untrojan.records import PairScore
from untrojan.triggers import Trigger

FAMILIES: dict[str, type[TriggerFamily]] = {"patch": PatchFamily, "additive": AdditiveFamily}

Pair = tuple[int, int]
Key = TypeVar("Key")


@dataclass(frozen=True, kw_only=True)
class ScanSettings:
    """What a scan spends, and its thresholds. Chosen on victims other than those that any figure is reported on.

    pairs: the search for each pair, by kind; probe: the search for one trigger that moves images of all classes to
    whatever other class, ``probes`` times from different starts; transfer: the second search for a pair, started from a
    trigger found for others; transferred: share of a class's images that such a trigger must move for it; pooled: the
    re-estimation per target.
    """

    kinds: tuple[str, ...] = tuple(FAMILIES)
    pairs: Mapping[str, Budget] = field(
        default_factory=lambda: {"patch": Budget(steps=70, images=12), "additive": Budget(steps=50, images=10)}
    )
    probes: int = 3
    probe: Budget = field(default_factory=lambda: Budget(steps=80, images=50, level=0.6, patience=40))
    transfer: Budget = field(default_factory=lambda: Budget(steps=60, images=12))
    transferred: float = 0.25
    pooled: Budget = field(default_factory=lambda: Budget(steps=100, images=48, level=0.95, patience=40))
    thresholds: Mapping[str, Thresholds] = field(
        # Between classes that are merely alike, perturbations vary more than patches do.
        default_factory=lambda: {"patch": Thresholds(), "additive": Thresholds(pair=14.0, target=8.0)}
    )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return asdict(self)


@dataclass(frozen=True)
class Findings:
    """All pairs of all kinds; one re-estimated trigger per detected (target, kind); kinds that mostly found nothing."""

    pairs: tuple[PairScore, ...]
    triggers: Mapping[tuple[int, str], Trigger]
    unsearchable: tuple[str, ...]


def scan_pairs(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    settings: ScanSettings,
    *,
    generator: torch.Generator,
    progress: Progress,
) -> Findings:
    """Invert and judge. images: float [N, C, H, W] in [0, 1] that the classifier gets right, on its device; labels:
    int64 [N]. Classes without images are no sources, but may be targets."""
    sources = {int(c): images[labels == c] for c in labels.unique().tolist()}
    means = {s: classifier.predict(x).mean(0) for s, x in sources.items()}
    classes = len(next(iter(means.values())))
    pairs = [(s, t) for t in range(classes) for s in sources if s != t]
    margins = [float(means[s][s] - means[s][t]) for s, t in pairs]
    found_by = {}
    unsearchable = []
    for kind in settings.kinds:
        search = _Search(classifier, FAMILIES[kind](), sources, generator, progress)
        result = _search_kind(search, pairs, margins, kind, settings)
        found_by[kind] = search, result
        if sum(f.size is None for f in result.found.values()) > len(pairs) / 2:
            unsearchable.append(kind)
    leading = _leading_kinds({kind: result for kind, (_, result) in found_by.items()})
    scored: list[PairScore] = []
    triggers: dict[tuple[int, str], Trigger] = {}
    for kind, (search, result) in found_by.items():
        members = {t: ss for t, ss in result.members().items() if leading[t] == kind}
        confirmed, pooled = search.confirmed(members, result, settings.pooled)
        triggers |= {(t, kind): trigger for t, trigger in pooled.items()}
        for (s, t), inversion in result.found.items():
            shown = None if inversion.size is None else result.scores[s, t]
            hit = s in confirmed.get(t, ())
            scored.append(PairScore(source=s, target=t, kind=kind, size=inversion.size, score=shown, detected=hit))
    return Findings(tuple(scored), triggers, tuple(unsearchable))


@dataclass(frozen=True)
class _KindResult:
    """All pairs of one kind: their smallest triggers, their scores, and which are detected."""

    found: Mapping[Pair, Inversion]
    scores: Mapping[Pair, float]
    detected: frozenset[Pair]

    def members(self) -> dict[int, list[int]]:
        """Detected sources by target, the highest score first."""
        members: dict[int, list[int]] = {}
        for s, t in sorted(self.detected, key=lambda pair: -self.scores[pair]):
            members.setdefault(t, []).append(s)
        return members


def _search_kind(
    search: _Search, pairs: Sequence[Pair], margins: Sequence[float], kind: str, settings: ScanSettings
) -> _KindResult:
    found = search.pairs(pairs, settings.pairs[kind])
    starts = search.probed(found, settings.probes, settings.probe, settings.transferred)
    if starts:
        found = search.transfer(found, starts, settings.transfer)
    thresholds = settings.thresholds[kind]
    result = _judged(found, margins, thresholds)
    linked = search.linked(result, settings.transferred)
    if linked:
        found = search.transfer(found, linked, settings.transfer)
        result = _judged(found, margins, thresholds, linked)
    return result


def _judged(
    found: Mapping[Pair, Inversion], margins: Sequence[float], thresholds: Thresholds, linked: Collection[Pair] = ()
) -> _KindResult:
    pairs = list(found)
    sizes = [inversion.size for inversion in found.values()]
    scores = anomaly_scores(statistics_of(sizes, margins, thresholds.margin_power))
    hits = judge(pairs, scores, thresholds, linked)
    detected = frozenset(pair for pair, hit in zip(pairs, hits.tolist(), strict=True) if hit)
    return _KindResult(found, dict(zip(pairs, scores.tolist(), strict=True)), detected)


def _leading_kinds(results: Mapping[str, _KindResult]) -> dict[int, str]:
    """The kind that explains each detected target best.

    A patch can also be written as a perturbation, if a larger one, and the other way round; what such a shadow adds to
    its kind's own evidence is pairs of classes that are merely alike.
    """
    best: dict[int, tuple[float, str]] = {}
    for kind, result in results.items():
        for target, members in result.members().items():
            evidence = sum(result.scores[s, target] for s in members)
            best[target] = max(best.get(target, (0.0, "")), (evidence, kind))
    return {target: kind for target, (_, kind) in best.items()}


class _Search:
    """The searches of one kind of trigger."""

    def __init__(
        self,
        classifier: Classifier,
        family: TriggerFamily,
        sources: Mapping[int, Tensor],
        generator: torch.Generator,
        progress: Progress,
    ):
        self.classifier, self.family, self.sources = classifier, family, sources
        self.generator, self.progress = generator, progress

    def pairs(self, pairs: Sequence[Pair], budget: Budget) -> dict[Pair, Inversion]:
        """The smallest trigger of each pair."""
        chosen = {s: pick(x, budget.images, self.generator) for s, x in self.sources.items()}
        return self._invert("inverting", {p: Problem(chosen[p[0]], p[1]) for p in pairs}, budget)

    def probed(
        self, found: Mapping[Pair, Inversion], count: int, budget: Budget, share: float, growth: float = 2.0
    ) -> dict[Pair, Trigger]:
        """For each class the pair that one trigger for all classes moves it to, if it moves a share of it, and the
        trigger.

        An attacker's one trigger serves all his pairs, so all classes together show where it lies; the few images of
        one pair alone often lead the search to some other, larger one. It need not be known who is sent where. A start
        that ends at more than ``growth`` times the smallest size has found something else, and counts for nothing.
        """
        everything = torch.cat(list(self.sources.values()))
        labels = torch.cat([torch.full((len(x),), s, device=x.device) for s, x in self.sources.items()])
        problems = {number: Problem(everything, -1, labels=labels) for number in range(count)}
        starts: dict[Pair, tuple[float, Trigger]] = {}
        ended = [i for i in self._invert("probing for", problems, budget).values() if i.size is not None]
        for inversion in ended:
            if inversion.trigger is None or (inversion.size or 0.0) > growth * min(i.size or 0.0 for i in ended):
                continue
            for source in self.sources:
                goal, reached = self._moved(inversion.trigger, source)
                if (source, goal) in found and reached >= share:
                    candidate = reached, inversion.trigger
                    starts[source, goal] = max(starts.get((source, goal), candidate), candidate, key=_first)
        return {pair: trigger for pair, (_, trigger) in starts.items()}

    def linked(self, result: _KindResult, share: float, most: int = 12) -> dict[Pair, Trigger]:
        """Pairs that the trigger of a detected pair moves as well, though they were not detected themselves.

        An attacker's one trigger serves all his pairs: where the search for one of them ended in a local minimum, the
        trigger of another is a better start.
        """
        starts: dict[Pair, tuple[float, Trigger]] = {}
        for pair in sorted(result.detected, key=lambda p: -result.scores[p])[:most]:
            trigger = self._strong(result, pair)
            if trigger is None:
                continue
            for source in self.sources:
                goal, reached = self._moved(trigger, source)
                candidate = source, goal
                if candidate in result.found and candidate not in result.detected and reached >= share:
                    starts[candidate] = max(starts.get(candidate, (0.0, trigger)), (reached, trigger), key=_first)
        return {pair: trigger for pair, (_, trigger) in starts.items()}

    def transfer(
        self, found: Mapping[Pair, Inversion], starts: Mapping[Pair, Trigger], budget: Budget
    ) -> dict[Pair, Inversion]:
        """``found``, with each pair of ``starts`` searched once more from there; the smaller trigger stays."""
        problems = {
            (s, t): Problem(pick(self.sources[s], budget.images, self.generator), t, start=start)
            for (s, t), start in starts.items()
        }
        again = self._invert("following up", problems, budget)
        smaller = {p: r for p, r in again.items() if (r.size or torch.inf) < (found[p].size or torch.inf)}
        return {**found, **smaller}

    def confirmed(
        self, members: Mapping[int, Sequence[int]], result: _KindResult, budget: Budget, growth: float = 2.0
    ) -> tuple[dict[int, list[int]], dict[int, Trigger]]:
        """The sources of each target that one trigger serves, and that trigger, estimated on all of them together.

        The false-pair test (BNA, Apdx C): if the joint trigger is ``growth`` times as large as that of any source
        alone, they do not share one. Then the pair with the highest score stays, and those that its trigger moves too.
        """
        kept = {t: list(ss) for t, ss in members.items()}
        pooled = self._pooled(kept, result, budget)
        doubtful = {}
        for target, sources in kept.items():
            alone = max(result.found[s, target].size or 0.0 for s in sources)
            joint = pooled[target].size
            if len(sources) > 1 and (joint is None or joint > growth * alone):
                trigger = self._strong(result, (sources[0], target))
                others = [s for s in sources[1:] if trigger and self._moved(trigger, s, target)[1] > 0.5]
                doubtful[target] = [sources[0], *others]
        pooled |= self._pooled(doubtful, result, budget)
        kept |= doubtful
        return kept, {t: r.trigger for t, r in pooled.items() if r.trigger is not None}

    def _pooled(
        self, members: Mapping[int, Sequence[int]], result: _KindResult, budget: Budget
    ) -> dict[int, Inversion]:
        problems = {
            t: Problem(torch.cat([self.sources[s] for s in ss]), t, start=self._strong(result, (ss[0], t)))
            for t, ss in members.items()
        }
        return self._invert("re-estimating", problems, budget) if problems else {}

    def _strong(self, result: _KindResult, pair: Pair) -> Trigger | None:
        trigger = result.found[pair].trigger
        return None if trigger is None else self.family.strengthened(trigger)

    def _moved(self, trigger: Trigger, source: int, target: int | None = None) -> tuple[int, float]:
        """Where the trigger sends most images of a class that leave it (or ``target``), and which share goes there."""
        answers = self.classifier.predict(trigger.stamp(self.sources[source][:50])).argmax(1)
        counts = torch.bincount(answers, minlength=max(source, target or 0) + 1).float() / len(answers)
        counts[source] = 0
        goal = int(counts.argmax()) if target is None else target
        return goal, float(counts[goal])

    def _invert(self, doing: str, problems: Mapping[Key, Problem], budget: Budget) -> dict[Key, Inversion]:
        self.progress.start(f"{doing} {self.family.kind} triggers", len(problems))
        results = invert(
            self.classifier,
            self.family,
            list(problems.values()),
            budget,
            generator=self.generator,
            progress=self.progress,
        )
        return dict(zip(problems, results, strict=True))


def _first(row: tuple[float, Trigger]) -> float:
    return row[0]


def pick(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` random images, or all where there are fewer."""
    return images[torch.randperm(len(images), generator=generator)[:count].to(images.device)]


def targets_of(pairs: Sequence[PairScore]) -> tuple[int, ...]:
    """The detected target classes, ascending."""
    return tuple(sorted({p.target for p in pairs if p.detected}))
