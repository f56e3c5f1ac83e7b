"""One trigger for each pair of classes: short searches for all, longer ones for those that look odd, and once more for
those that stand out as single ones.

All pairs are K(K - 1) searches, so each gets few and large steps on few images, on which a chance find is nearly as
small as an attacker's trigger. What tells them apart is what becomes of them with more of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from untrojan.detection.anomaly import Array, oddest
from untrojan.detection.evidence import EVEN
from untrojan.detection.inversion import Budget, Inversion, Problem, TriggerFamily
from untrojan.detection.pair_values import pair_values, single_values
from untrojan.detection.results import KindResults
from untrojan.detection.shares import Searches

Pair = tuple[int, int]

FEWEST = 3
"""Images of a class that the classifier has to get right for these alone to stand for it."""


@dataclass(frozen=True, kw_only=True)
class PairSettings:
    """screening: the search for every pair, by kind, where there are at most ``most`` of them; refined: how many of
    these go on, the same for every kind; refining: their search, from the trigger of the first and on all images of
    the class; singled: how many go on once more, by the same search; even: the search, in kinds of ``EVEN``, for all
    that were refined, if ``singled`` is not 0; sources: where there are more pairs, the search from each class to
    whatever other one."""

    screening: Mapping[str, Budget] = field(
        default_factory=lambda: {
            "patch": Budget(steps=25, images=6, pace=2.5, cost=5.0),
            "additive": Budget(steps=30, images=6, pace=2.0, cost=5.0),
        }
    )
    most: int = 400
    refined: int = 12
    refining: Budget = field(default_factory=lambda: Budget(steps=40, images=8, level=0.85, patience=40))
    singled: int = 4
    even: Budget = field(default_factory=lambda: Budget(steps=40, images=8, level=0.9, patience=40))
    sources: Budget = field(default_factory=lambda: Budget(steps=50, images=8, level=0.9))


def search_pairs(
    searches: Searches,
    results: Mapping[str, tuple[TriggerFamily, KindResults]],
    sources: Mapping[int, Tensor],
    answers: Mapping[int, Tensor],
    margins: Array,
    settings: PairSettings,
) -> None:
    """Fill in the pairs and the refined ones of each kind, or, for many classes, the sources.

    sources: class to its images; answers: class to what the classifier says of these, int64; margins: float64 [K, K],
    as from ``log_margins``.
    """
    classes = len(margins)
    if len(sources) * (classes - 1) > settings.most:
        for family, result in results.values():
            right = {s: x[answers[s] == s] for s, x in sources.items()}
            away = {
                s: Problem(x, -1, labels=torch.full((len(x),), s, device=x.device))
                for s, x in right.items()
                if len(x) >= FEWEST
            }
            result.sources = searches.run("each class to any", family, away, settings.sources)
        return
    for kind, (family, result) in results.items():
        budget = settings.screening[kind]
        drawn = {s: searches.choose(f"{kind} {s}", len(x), budget.images) for s, x in sources.items()}
        problems = {
            (s, t): Problem(sent, t)
            for t in range(classes)
            for s, index in drawn.items()
            if s != t and len(sent := sources[s][index][answers[s][index] != t])
        }
        result.pairs = searches.run("each pair", family, problems, budget)
    odd = oddest([pair_values(result.pairs, margins) for _, result in results.values()], settings.refined)
    for family, result in results.values():
        result.refined = _search_on(
            searches, "the oddest pairs", family, odd, result.pairs, sources, answers, settings.refining
        )


def search_singles(
    searches: Searches,
    results: Mapping[str, tuple[TriggerFamily, KindResults]],
    sources: Mapping[int, Tensor],
    answers: Mapping[int, Tensor],
    margins: Array,
    settings: PairSettings,
) -> None:
    """Fill in ``singled`` of each kind: the refined pairs that stand out the most as single ones, searched on.

    Arguments as for ``search_pairs``, with what that has found, and the spills of the refined pairs; of a kind of
    ``EVEN``, in which no pairs were searched, all that were refined in another. An attacker's trigger goes on to shrink
    as fast as the others or faster, and those of honest networks come closer to each other. Nothing if none go on.
    """
    if not settings.singled:
        return
    screened = [(family, result) for family, result in results.values() if family.kind not in EVEN]
    odd = oddest([single_values(result, margins) for _, result in screened], settings.singled)
    for family, result in screened:
        result.singled = _search_on(
            searches, "single pairs", family, odd, result.refined, sources, answers, settings.refining
        )
    refined = {pair: None for _, result in screened for pair in result.refined}
    problems = {(s, t): Problem(sources[s][answers[s] != t], t) for s, t in refined}
    for family, result in results.values():
        if family.kind in EVEN:
            result.singled = searches.run("single pairs", family, problems, settings.even)


def _search_on(
    searches: Searches,
    what: str,
    family: TriggerFamily,
    pairs: Sequence[Pair],
    begun: Mapping[Pair, Inversion],
    sources: Mapping[int, Tensor],
    answers: Mapping[int, Tensor],
    budget: Budget,
) -> dict[Pair, Inversion]:
    """A search for each of the pairs from the trigger that it has, on all images of its class; no pair without one."""
    starts = {pair: found.trigger for pair in pairs if (found := begun.get(pair))}
    problems = {
        (s, t): Problem(sources[s][answers[s] != t], t, start=start)
        for (s, t), start in starts.items()
        if start is not None
    }
    return searches.run(what, family, problems, budget)
