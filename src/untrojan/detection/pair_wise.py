"""One trigger for each pair of classes: what the trigger of an attack with a single source does.

All pairs are K (K - 1) searches, so each gets few and large steps on few images, on which a chance find is nearly as
small as an attacker's trigger. What tells them apart is what becomes of them with more of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from untrojan.detection.effects import effects
from untrojan.detection.family import TriggerFamily
from untrojan.detection.found import Clean, Key, Pair, Results
from untrojan.detection.inversion import Budget, Problem
from untrojan.detection.plan import PairWise
from untrojan.detection.ranking import below_expected, best_ranked, singular
from untrojan.detection.shares import Searches

FEWEST = 3
"""Images of a class that the classifier has to get right for these alone to stand for it."""


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
