"""From clean images to a search table. Every phase takes what the phases before it found; none looks at a verdict.

One trigger from all classes into each; one for each pair of classes, of which the most unusual go on; and, from these
and from parts of the image, one from all classes to whatever other. What goes on is chosen by rank (``ranking``). At
the end every trigger that counts is tried on images of all classes (``effects``) and looked at inside (``subspace``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from untrojan.classifier import Classifier
from untrojan.detection.effects import Effect, effects
from untrojan.detection.feeding import alternatives
from untrojan.detection.inversion import Budget, Inversion, Problem, TriggerFamily
from untrojan.detection.margins import largest_margins, log_margins
from untrojan.detection.plan import FAMILIES, MANY, PairWise, SearchPlan, TargetWise, Untargeted
from untrojan.detection.ranking import Array, below_expected, best_ranked, singular
from untrojan.detection.shares import Searches
from untrojan.detection.subspace import Inside, cosines, inside
from untrojan.detection.table import Found, Likeness, Network, Scope, SearchTable
from untrojan.triggers import Trigger

Pair = tuple[int, int]
FEWEST = 3
"""Images of a class that the classifier has to get right for these alone to stand for it."""
CLOSE, CHANGED = 100, 20
"""Images among which distances are measured, and on which it is seen what triggers change."""


@dataclass(frozen=True, order=True)
class Key:
    """Which search a trigger is from; see ``Found``."""

    scope: Scope
    kind: str
    source: int = -1
    target: int = -1
    number: int = 0
    stage: int = 0


@dataclass(frozen=True)
class Clean:
    """The clean images as the searches take them.

    images: float [N, C, H, W] in [0, 1]; labels, answers: int64 [N], their classes and what the classifier says.
    margins: float64 [K, K], log margins on clean images. Classes without images are no sources, but may be targets.
    """

    images: Tensor
    labels: Tensor
    answers: Tensor
    classes: int
    margins: Array

    def of(self, source: int) -> tuple[Tensor, Tensor]:
        """The images of a class, and what they are taken for."""
        own = self.labels == source
        return self.images[own], self.answers[own]

    def sources(self) -> list[int]:
        """The classes that there are images of."""
        return sorted(set(self.labels.tolist()))

    def pair(self, source: int, target: int) -> Tensor:
        """Images of a class that are not taken for the target anyway: these tell nothing of triggers into it."""
        images, answers = self.of(source)
        return images[answers != target]

    def others(self, target: int) -> Tensor:
        """The same of all other classes."""
        return self.images[(self.labels != target) & (self.answers != target)]

    def right(self) -> tuple[Tensor, Tensor]:
        """Images that are classified right, and their classes."""
        right = self.labels == self.answers
        return self.images[right], self.labels[right]


@dataclass
class Results:
    """What was found so far, in the order of the searches."""

    found: dict[Key, Inversion] = field(default_factory=dict)

    def add(self, key: Key, inversion: Inversion) -> None:
        """Note where a search ended."""
        self.found[key] = inversion

    def pairs(self, kind: str, stage: int) -> dict[Pair, Inversion]:
        """The pair-wise searches of a kind and stage."""
        of = {k: i for k, i in self.found.items() if (k.scope, k.kind, k.stage) == ("pair-wise", kind, stage)}
        return {(k.source, k.target): i for k, i in of.items()}

    def targets(self, kind: str, stage: int = 0) -> dict[int, Inversion]:
        """The target-wise searches of a kind and stage."""
        of = {k: i for k, i in self.found.items() if (k.scope, k.kind, k.stage) == ("target-wise", kind, stage)}
        return {k.target: i for k, i in of.items()}

    def scope(self, scope: Scope, kind: str) -> dict[Key, Inversion]:
        """All searches of a scope and kind."""
        return {k: i for k, i in self.found.items() if (k.scope, k.kind) == (scope, kind)}


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
    measured = effects(
        searches, {k: t for k, t in _triggers(results).items() if _counts(k, results, classes)}, *clean.right(), classes
    )
    seen = look_inside(searches, clean, results)
    reach = tuple(largest_margins(searches, images, labels, classes).tolist())
    rows = tuple(_row(key, i, measured.get(key), seen.get(key)) for key, i in results.found.items())
    alike = tuple(_likeness(kind, results, seen, clean) for kind in plan.kinds)
    table = SearchTable(replace(network, reach=reach), rows, alike, tuple(searches.unreached), seed=searches.seed)
    return Searched(table, _triggers(results))


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
    smaller = [t for t, i in found.items() if _smaller(i, first[t])]
    for t in smaller:
        results.add(Key("target-wise", family.kind, target=t), found[t])
        results.found.pop(Key("target-wise", family.kind, target=t, stage=1), None)
    if family.kind in plan.again:
        _targets_on(searches, family, clean, results, smaller, plan.again[family.kind])


def search_pairs(
    searches: Searches, families: Mapping[str, TriggerFamily], clean: Clean, results: Results, plan: PairWise
) -> dict[str, dict[Pair, float]]:
    """One trigger for each pair, the most unusual of which go on; by kind, what those do to other classes. Of many
    classes one from each to whatever other."""
    own = {kind: families[kind] for kind in plan.first if kind in families}
    if clean.classes < 3:  # its pairs are its classes
        return {}
    if len(clean.sources()) * (clean.classes - 1) > plan.most:
        right = {s: images[answers == s] for s in clean.sources() for images, answers in [clean.of(s)]}
        away = {
            s: Problem(x, -1, labels=torch.full((len(x),), s, device=x.device))
            for s, x in right.items()
            if len(x) >= FEWEST
        }
        for kind, family in own.items():
            for s, inversion in searches.run("each class to any", family, away, plan.sources).items():
                results.add(Key("source-wise", kind, source=s), inversion)
        return {}
    for kind, family in own.items():
        budget = plan.first[kind]
        problems: dict[Pair, Problem] = {}
        for s in clean.sources():
            images, answers = clean.of(s)
            index = searches.choose(f"{kind} {s}", len(images), budget.images)
            images, answers = images[index], answers[index]
            problems |= {
                (s, t): Problem(sent, t) for t in range(clean.classes) if t != s and len(sent := images[answers != t])
            }
        for (s, t), inversion in searches.run("each pair", family, problems, budget).items():
            results.add(Key("pair-wise", kind, s, t), inversion)
    unusual = best_ranked([below_expected(results.pairs(kind, 0), clean.margins) for kind in own], plan.refined)
    for family in own.values():
        _pairs_on(searches, family, clean, results, unusual, 1, plan.refining)
    return {kind: _losses(searches, clean, results, kind) for kind in own}


def search_singled(
    searches: Searches,
    families: Mapping[str, TriggerFamily],
    clean: Clean,
    results: Results,
    losses: Mapping[str, Mapping[Pair, float]],
    plan: PairWise,
) -> None:
    """The refined pairs with the smallest and most sparing triggers, searched on once more; and blends of all refined.

    losses: by kind, what the refined triggers do to other classes, from 0 to 1.
    """
    values = [
        singular(results.pairs(kind, 0), results.pairs(kind, 1), lost, clean.margins) for kind, lost in losses.items()
    ]
    for kind in losses:
        _pairs_on(searches, families[kind], clean, results, best_ranked(values, plan.singled), 2, plan.refining)
    if "blend" in families and losses:
        refined = dict.fromkeys(pair for kind in losses for pair in results.pairs(kind, 1))
        problems = {(s, t): Problem(clean.pair(s, t), t) for s, t in refined}
        for (s, t), inversion in searches.run("single pairs", families["blend"], problems, plan.blends).items():
            results.add(Key("pair-wise", "blend", s, t), inversion)


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


def only_destination(sent: Tensor, share: float) -> int | None:
    """The class that at least this share of the moved images is sent to, if there is one. sent: int64 [K, K].

    >>> only_destination(torch.tensor([[5, 0, 9], [0, 0, 9], [0, 0, 7]]), 0.9), only_destination(torch.eye(3), 0.9)
    (2, None)
    """
    moved = sent.float().clone().fill_diagonal_(0).sum(0)
    return int(moved.argmax()) if float(moved.sum()) > 0 and float(moved.max()) >= share * float(moved.sum()) else None


def look_inside(searches: Searches, clean: Clean, results: Results) -> dict[Key, Inside]:
    """What the triggers change inside: of those into a class, of the refined pairs, and of the untargeted ones."""
    images, labels = clean.right()
    asked: dict[Key, tuple[Trigger, Tensor, int | None]] = {}
    for key, trigger in _triggers(results).items():
        if _counts(key, results, clean.classes):
            among = labels != key.target if key.source < 0 else labels == key.source
            asked[key] = trigger, among, key.target if key.target >= 0 else None
    return inside(searches, asked, images, labels)


def describe(classifier: Classifier, images: Tensor, labels: Tensor, classes: int, seed: int) -> Network:
    """What the classifier is and says of the clean images, all but its ``reach``; before any layer is folded.

    images: float [N, C, H, W] in [0, 1]; labels: int64 [N], below ``classes``.
    """
    logits = classifier.predict(images).double().cpu()
    shape, known = images.shape, labels.cpu()
    gaps = torch.full((classes, classes), torch.nan, dtype=torch.float64)
    for s in known.unique().tolist():
        means = logits[known == s].mean(0)
        gaps[s] = means[s] - means
    gaps.fill_diagonal_(torch.nan)
    confusion = torch.bincount(known * classes + logits.argmax(1), minlength=classes**2)
    some = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))[:CLOSE]
    flat, own = images[some].flatten(1).cpu(), known[some]
    apart = torch.cdist(flat, flat)[own[:, None] != own[None, :]]
    layers: dict[str, int] = {}
    for module in classifier.module.modules():
        if next(module.children(), None) is None and not isinstance(module, nn.Identity):
            layers[type(module).__name__] = layers.get(type(module).__name__, 0) + 1
    return Network(
        classes=classes,
        images=tuple(torch.bincount(known, minlength=classes).tolist()),
        confusion=tuple(confusion.tolist()),
        input_shape=(shape[1], shape[2], shape[3]),
        parameters=sum(p.numel() for p in classifier.module.parameters()),
        layers=tuple(sorted(layers.items())),
        logit_gaps=tuple(gaps.flatten().tolist()),
        reach=(math.nan,) * classes,
        distance=float(apart.median()) if apart.numel() else math.nan,
        contrast=float(images.flatten(1).std(1).mean()),
        sureness=float(logits.softmax(1).amax(1).mean()),
        alternatives=alternatives(classifier, images, labels),
    )


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


def _pairs_on(
    searches: Searches,
    family: TriggerFamily,
    clean: Clean,
    results: Results,
    pairs: Sequence[Pair],
    stage: int,
    budget: Budget,
) -> None:
    """A search for each of the pairs from the trigger that it has, on all images of its class; none without one."""
    begun = results.pairs(family.kind, stage - 1)
    starts = {pair: start for pair in pairs if pair in begun and (start := begun[pair].trigger) is not None}
    problems = {(s, t): Problem(clean.pair(s, t), t, start=start) for (s, t), start in starts.items()}
    for (s, t), inversion in searches.run(f"unusual pairs, {stage}", family, problems, budget).items():
        results.add(Key("pair-wise", family.kind, s, t, stage=stage), inversion)


def _losses(searches: Searches, clean: Clean, results: Results, kind: str) -> dict[Pair, float]:
    """What the refined triggers of a kind do to other classes than their own two, from 0 to 1."""
    triggers = {pair: i.trigger for pair, i in results.pairs(kind, 1).items() if i.trigger is not None}
    measured = effects(searches, triggers, *clean.right(), clean.classes)
    lost = {pair: effect.off_target(*pair) for pair, effect in measured.items()}
    return {pair: loss for pair, loss in lost.items() if loss is not None}


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
        off_target=effect.off_target(key.source, key.target) if effect is not None and pair else None,
        sent=None if effect is None else tuple(effect.sent.flatten().tolist()),
    )


def _likeness(kind: str, results: Results, seen: Mapping[Key, Inside], clean: Clean) -> Likeness:
    """Of the target-wise triggers as they ended; what they change in the image is the mean over some clean ones."""
    last = {k.target: k for k in sorted(results.scope("target-wise", kind), key=lambda k: k.stage)}
    triggers, shown = _triggers(results), clean.images[:: max(1, len(clean.images) // CHANGED)]
    changes = {t: (triggers[k].apply(shown) - shown).mean(0).cpu() for t, k in last.items() if k in triggers}
    rests = {t: seen[k].rest for t, k in last.items() if k in seen}
    return Likeness(kind, cosines(changes, clean.classes), cosines(rests, clean.classes))


def _smaller(one: Inversion, other: Inversion) -> bool:
    return one.size is not None and (other.size is None or one.size < other.size)
