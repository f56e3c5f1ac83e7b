"""What a scan's triggers are compared with, and by how much each is smaller than that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from untrojan.detection.anomaly import (
    FEW,
    MANY,
    Array,
    below_the_next,
    below_the_others,
    below_the_smallest,
    below_two_way_fit,
    in_effect,
    log_sizes,
    second_of_ten,
    usual_gap,
)
from untrojan.detection.evidence import EVEN, Finding, usual_candidates
from untrojan.detection.inversion import Inversion
from untrojan.detection.null import CLASSES


@dataclass
class KindResults:
    """The inversions of one kind of trigger, by what they were for; empty where it was not searched.

    ``refined_targets``, ``refined``: a few of ``targets`` and ``pairs``, searched on; ``singled``: a few of
    ``refined``, searched on again. ``spills``: what the triggers of ``refined``, or of ``singled``, do to images of
    other classes (``spill.spill``). ``mapped``: how much the class of an image that a trigger of ``probes`` moves says
    of where it goes (``mapping.mappings``).
    """

    targets: dict[int, Inversion] = field(default_factory=dict)
    refined_targets: dict[int, Inversion] = field(default_factory=dict)
    probes: dict[int, Inversion] = field(default_factory=dict)
    pairs: dict[tuple[int, int], Inversion] = field(default_factory=dict)
    refined: dict[tuple[int, int], Inversion] = field(default_factory=dict)
    singled: dict[tuple[int, int], Inversion] = field(default_factory=dict)
    sources: dict[int, Inversion] = field(default_factory=dict)
    spills: dict[tuple[int, int], float] = field(default_factory=dict)
    mapped: dict[int, float] = field(default_factory=dict)

    @property
    def latest(self) -> dict[tuple[int, int], Inversion]:
        """Of each pair the trigger that was searched the longest."""
        found = self.pairs
        for later in (self.refined, self.singled):
            found = found | {pair: i for pair, i in later.items() if i.size is not None}
        return found


MARGIN_POWER = 0.75
"""How far the size of a pair's trigger follows the classifier's own margin between the two classes."""

REACH_POWER = 0.75
"""How much smaller than others a class's blend must be where the class can be reached farther without a trigger. One of
a small margin is no odder for that: an attacker's target may have a large one."""

SPILL_POWER, LEAST_SPILL = 0.5, 0.003
"""How much it counts that a pair's trigger does little to images of other classes, and below what it is next to
nothing. Powers from .3 to .75 tell the attacked victims of the calibration half from the clean ones about as well."""

ALIKE_MARGIN, ALIKE_BACK = 0.75, 0.5
"""How much less odd a single pair is for a small margin between its classes, beyond ``MARGIN_POWER``, and for a small
trigger the other way. Two traffic signs that differ in a digit are alike both ways, with every seed; who poisons one
class teaches nothing of the way back. Without it honest networks of ten signs have values up to 1.97 (in both kinds and
as a blend together), with it 1.6, and those of attacked ones are hardly less."""

MAPPING_POWER, CHANCE = 2.0, 0.5
"""How much it counts that a trigger for all classes sends each to one of its own, for every nat that an image's class
says of where it goes beyond a share of the most that it could. In all-to-all BadNets of three, five and ten digits
(calibration half) it says .77 of that or more; in honest networks of ten classes .4 at most, but for one warp's .65."""

SPREAD = {"patch": 0.263, "additive": 0.154}
"""How far the values of pairs lie apart in honest networks of digits, as ``spread`` takes it, in their mean."""

SPREAD_POWER, LEAST_SPREAD = 0.75, 0.5
"""How far a pair's value is measured by its own network's spread, and the share of ``SPREAD`` that this has at least.

Pairs of photographs' classes differ two thirds as much as those of digits', in their honest networks' extremes, too;
wholly by its own spread, an attacked network of digits is found a little less often."""

ODD_PAIRS = 2
"""A single pair, or as many, stand out from the rest."""


def findings_of(
    kind: str,
    result: KindResults,
    margins: Array,
    plausible: Callable[[float], bool] = lambda size: True,
    reach: Mapping[int, float] | None = None,
) -> list[Finding]:
    """Every size of a kind against those it is to be compared with.

    margins: ``log_margins``, float64 [K, K]; reach: ``reaches``, of no account with more than ``MANY`` classes.
    """
    found: list[Finding] = []
    many, fewer = len(margins) > MANY, len(margins) < CLASSES
    far = {t: max(by, 0.0) for t, by in (reach or {}).items()} if not many else {}

    def add(test: str, value: float, inversion: Inversion, candidates: int, **where: int) -> None:
        if inversion.size is not None and np.isfinite(value):
            fits = plausible(inversion.size)
            easy = REACH_POWER * far.get(where["target"], 0.0) if test == "target" and kind in EVEN else 0.0
            found.append(
                Finding(
                    test,
                    kind,
                    float(value),
                    inversion.size,
                    candidates,
                    plausible=fits,
                    many=many,
                    easy=easy,
                    few=fewer,
                    **where,
                )
            )

    logs = log_sizes([i.size for i in result.targets.values()])
    # A gap to the smallest other one is a single value however many there are, and wider among few.
    gaps = not many and kind not in EVEN
    by, among = (usual_gap(max(len(logs), 2)), CLASSES) if gaps else (1.0, in_effect(len(logs)))
    for target, value in target_values(result, many, even=kind in EVEN).items():
        add("target", value / by, trigger_into(target, result), among, target=target)
    # Where many classes lie close together all are easily moved, and more than one of them is easily reached, too; the
    # one that is reached the most easily may be the attacker's.
    easiest = -np.inf
    if len(logs) > 1:
        easiest = np.min(logs) if kind in EVEN else np.sort(logs)[1] if many else second_of_ten(logs)
    alone = log_sizes([i.size for i in result.sources.values()])
    if many:  # and from each class some other one is still closer
        easiest = min(easiest, np.median(alone)) if len(alone) else -np.inf
    tried = usual_candidates("mixed", many) if kind in EVEN else len(result.probes)  # its null is that of one start
    for number, inversion in result.probes.items():
        beyond = 0.0 if many else result.mapped.get(number, 0.0) - CHANCE * math.log(len(margins))
        laid_down = MAPPING_POWER * max(beyond, 0.0)
        add("mixed", easiest - log_sizes([inversion.size])[0] + laid_down, inversion, tried, number=number)
    few = len(margins) < FEW  # too few pairs to be compared
    own = _own_scale(kind, result, margins) if kind in SPREAD and not few else 1.0
    for (s, t), value in () if few else refined_values(result, margins).items():
        add("pair", value / own, result.refined[s, t], len(result.pairs), source=s, target=t)
    singly = single_values(result, margins) if kind not in EVEN else even_single_values(result)
    for (s, t), value in () if few else singly.items():
        candidates = len(result.pairs) or usual_candidates("single")
        add("single", value / own, result.latest[s, t], candidates, source=s, target=t)
    for (source, inversion), value in zip(result.sources.items(), below_the_others(alone), strict=True):
        add("source", value, inversion, in_effect(len(alone)), source=source)
    return found


def pair_values(pairs: Mapping[tuple[int, int], Inversion], margins: Array) -> dict[tuple[int, int], float]:
    """By how much each pair's trigger is smaller than its classes and the margin between them let expect."""
    matrix = np.full(margins.shape, np.nan)
    for pair, size in zip(pairs, log_sizes([i.size for i in pairs.values()]), strict=True):
        matrix[pair] = size - MARGIN_POWER * margins[pair]
    values = below_two_way_fit(matrix) if pairs else matrix
    return {pair: float(values[pair]) for pair, i in pairs.items() if i.size is not None}


def spread(values: Array, classes: int) -> float:
    """The standard deviation of the values of ``pair_values``, but for the largest eighth, which may be an attacker's.

    values: float64 [n]; NaN if the fit has more than half as many parameters, as where a deadline left most pairs out.
    """
    body = np.sort(values)[: values.size - values.size // 8]
    free = values.size - (2 * classes - 1)
    return (
        math.sqrt(float(np.square(body).sum()) / body.size * values.size / free)
        if 2 * free >= values.size > 0
        else math.nan
    )


def _own_scale(kind: str, result: KindResults, margins: Array) -> float:
    """By what values of pairs are divided, about 1 where the pairs differ as those of digits do."""
    values = np.array([v for v in pair_values(result.pairs, margins).values() if np.isfinite(v)])
    share = spread(values, len(margins)) / SPREAD[kind]
    return max(share, LEAST_SPREAD) ** SPREAD_POWER if math.isfinite(share) else 1.0


def refined_values(result: KindResults, margins: Array) -> dict[tuple[int, int], float]:
    """The same for the refined pairs: what they were before, and by how much more they shrank than others did.

    A chance find on a handful of images hardly shrinks, or grows, when more images are to follow; an attacker's trigger
    shrinks further. How much any trigger does depends on the classifier, so it is compared with what at least three
    quarters of the refined ones do.
    """
    before = pair_values(result.pairs, margins)
    shrunk = {
        pair: shrinkage(result.pairs[pair], refined)
        for pair, refined in result.refined.items()
        if refined.size is not None and pair in before
    }
    ordinary = float(np.quantile(list(shrunk.values()), 0.25)) if shrunk else 0.0
    return {pair: before[pair] + by - ordinary for pair, by in shrunk.items()}


def single_values(result: KindResults, margins: Array) -> dict[tuple[int, int], float]:
    """By how much a refined pair is odder than all others but ``ODD_PAIRS``, if sparing other classes counts as well.

    How small the triggers of the oddest pairs are, and how much they spill over, differs between honest classifiers;
    that one of them is by far the smallest and the most sparing does not. Pairs that were searched on again count as
    they ended, where a chance find's lead is smaller.
    """
    further = {
        pair: shrinkage(result.refined[pair], singled)
        for pair, singled in result.singled.items()
        if singled.size is not None
    }
    alike = likenesses(result.pairs, margins)
    values = {
        pair: value - alike[pair] + further.get(pair, 0.0) - SPILL_POWER * math.log(result.spills[pair] + LEAST_SPILL)
        for pair, value in refined_values(result, margins).items()
        if pair in result.spills and np.isfinite(value)
    }
    if len(values) <= ODD_PAIRS:
        return {}
    ordinary = sorted(values.values(), reverse=True)[ODD_PAIRS]
    return {pair: value - ordinary for pair, value in values.items()}


def likenesses(pairs: Mapping[tuple[int, int], Inversion], margins: Array) -> dict[tuple[int, int], float]:
    """How odd a pair may be since its classes look alike: the margin from one to the other is smaller than theirs let
    expect, or the trigger for the way back is."""
    closer = below_two_way_fit(np.where(np.eye(len(margins), dtype=bool), np.nan, margins))
    back = pair_values(pairs, margins)
    return {
        (s, t): ALIKE_MARGIN * _above_zero(closer[s, t]) + ALIKE_BACK * _above_zero(back.get((t, s), 0.0))
        for s, t in pairs
    }


def _above_zero(value: float) -> float:
    return max(float(value), 0.0) if np.isfinite(value) else 0.0


def even_single_values(result: KindResults) -> dict[tuple[int, int], float]:
    """The same of a kind of ``EVEN``: by how much a pair is odder than the two oddest others on average, a margin
    between its classes being of no account."""
    values = {
        pair: -float(log_sizes([i.size])[0]) - SPILL_POWER * math.log(result.spills[pair] + LEAST_SPILL)
        for pair, i in result.singled.items()
        if i.size is not None and pair in result.spills
    }
    if len(values) <= ODD_PAIRS:
        return {}
    return {
        pair: value - float(np.mean(sorted(v for other, v in values.items() if other != pair)[-ODD_PAIRS:]))
        for pair, value in values.items()
    }


def shrinkage(first: Inversion, refined: Inversion) -> float:
    """By how much the size became smaller, as a log ratio; both have one."""
    before, after = log_sizes([first.size, refined.size])
    return float(before - after)


def target_values(result: KindResults, many: bool = False, even: bool = False) -> dict[int, float]:
    """By how much the trigger into each class is smaller than the first of the others' smallest; many: than is usual
    among them, and ``even``: than the smallest but one of these.

    Of those that were searched on, with many classes as it ended; else the mean of that and of the same among these,
    since two searches for the same thing err less than one.
    """
    logs = log_sizes([i.size for i in result.targets.values()])
    below = below_the_next if even else below_the_others if many else below_the_smallest
    values = {
        t: float(value)
        for (t, first), value in zip(result.targets.items(), below(logs), strict=True)
        if first.size is not None
    }
    again = {t: i for t, i in result.refined_targets.items() if t in values}
    if many:
        return values | {t: values[t] + shrinkage(result.targets[t], refined) for t, refined in again.items()}
    second = below_the_smallest(log_sizes([i.size for i in again.values()]), among=len(values))
    if len(again) < 2:
        return values
    return values | {t: (values[t] + float(value)) / 2 for t, value in zip(again, second, strict=True)}


def reaches(margins: Array) -> dict[int, float]:
    """By how much the largest margin of each class is larger than is usual among the others, as a log ratio.

    margins: ``largest_margins``, float64 [K], NaN where unknown.
    """
    known = np.flatnonzero(~np.isnan(margins))
    logs = np.log(np.maximum(margins[known], 1e-3))  # a class that cannot be reached is no evidence against the others
    return {int(t): float(value) for t, value in zip(known, below_the_others(-logs), strict=True)}


def margin_findings(margins: Array) -> list[Finding]:
    """What ``reaches`` says of the same margins, as findings."""
    values, many, few = reaches(margins), len(margins) > MANY, len(margins) < CLASSES
    return [
        Finding("margin", "margin", value, float(margins[t]), in_effect(len(values)), target=t, many=many, few=few)
        for t, value in values.items()
    ]


def inversion_of(finding: Finding, result: KindResults) -> Inversion:
    """What a finding is about."""
    if finding.source is not None and finding.target is not None:
        pair = finding.source, finding.target
        return result.latest[pair] if finding.test == "single" else result.refined[pair]
    if finding.source is not None:
        return result.sources[finding.source]
    return result.probes[finding.number] if finding.target is None else trigger_into(finding.target, result)


def trigger_into(target: int, result: KindResults) -> Inversion:
    """From all classes, as it ended."""
    return result.refined_targets.get(target, result.targets[target])
