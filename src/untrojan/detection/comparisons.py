"""What a scan's triggers are compared with, and by how much each is smaller than that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from untrojan.detection.anomaly import (
    FEW,
    MANY,
    Array,
    below_the_next,
    below_the_others,
    below_the_smallest,
    in_effect,
    log_sizes,
    second_of_ten,
    usual_gap,
)
from untrojan.detection.evidence import EVEN, USUALLY_FOREIGN, Finding, usual_candidates
from untrojan.detection.inversion import Inversion
from untrojan.detection.null import CLASSES
from untrojan.detection.pair_values import (
    SPREAD,
    even_single_values,
    own_scale,
    refined_values,
    single_values,
)
from untrojan.detection.results import KindResults, shrinkage, trigger_into

REACH_POWER = 0.75
"""How much smaller than others a class's blend must be where the class can be reached farther without a trigger. One of
a small margin is no odder for that: an attacker's target may have a large one."""

MAPPING_POWER, CHANCE = 2.0, 0.5
"""How much it counts that a trigger for all classes sends each to one of its own, for every nat that an image's class
says of where it goes beyond a share of the most that it could. In all-to-all BadNets of three, five and ten digits
(calibration half) it says .77 of that or more; in honest networks of ten classes .4 at most, but for one warp's .65."""


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
            # A single pair's blend counts only with both other kinds.
            fits = plausible(inversion.size) and not (test == "single" and kind in EVEN)
            easy = REACH_POWER * far.get(where["target"], 0.0) if test == "target" and kind in EVEN else 0.0
            share, usual = _shares(result, _about(test, **where))
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
                    foreign=None if many else share,
                    usually_foreign=usual,
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
    own = own_scale(kind, result, margins) if kind in SPREAD and not few else 1.0
    for (s, t), value in () if few else refined_values(result, margins).items():
        add("pair", value / own, result.refined[s, t], len(result.pairs), source=s, target=t)
    singly = single_values(result, margins) if kind not in EVEN else even_single_values(result)
    for (s, t), value in () if few else singly.items():
        candidates = len(result.pairs) or usual_candidates("single")
        add("single", value / own, result.latest[s, t], candidates, source=s, target=t)
    for (source, inversion), value in zip(result.sources.items(), below_the_others(alone), strict=True):
        add("source", value, inversion, in_effect(len(alone)), source=source)
    return found


def _about(test: str, **where: int) -> int | tuple[int, int] | None:
    """What of ``KindResults.foreign`` a finding is about, if that counts for it."""
    if test == "target":
        return where["target"]
    return (where["source"], where["target"]) if test == "single" else None


def _shares(result: KindResults, key: int | tuple[int, int] | None) -> tuple[float | None, float]:
    """Of one trigger the share of what it changes that is foreign to the classes, and what is usual: the median of the
    network's other triggers of the kind and scope, at least ``USUALLY_FOREIGN``."""
    if key is None or key not in result.foreign:
        return None, USUALLY_FOREIGN
    others = [
        x for other, x in result.foreign.items() if other != key and isinstance(other, int) == isinstance(key, int)
    ]
    return result.foreign[key], max(USUALLY_FOREIGN, float(np.median(others)) if others else USUALLY_FOREIGN)


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
