"""The only place that decides: a search table and a reference set to a verdict, its reason, and what is named.

Everything here is a function of the table alone, so that a changed rule is tried on every table that was ever made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from untrojan.detection.features import Hypothesis
from untrojan.detection.localise import Named, kinds_of, named
from untrojan.detection.reference import Reference
from untrojan.detection.score import Scored, largest
from untrojan.detection.table import Network, SearchTable

Verdict = Literal["backdoor", "clean", "inconclusive"]

OVERWHELMING = 1e-6
"""The p-value from which a finding counts although no reference model is like this classifier, although images seem to
be fed wrongly, or beside another. Of 34 clean networks that hardly know a class and 27 that were fed wrongly the lowest
are 3e-6 and 5e-6: of those the law of the reference models says too little. Two attacks in one network are rare, and in
attacked networks a second class is often reached more easily than the rest."""
FED_BETTER, CERTAIN = 0.6, 3.0
"""Images seem to be fed wrongly if another usual way leaves at most this share of the errors, by as many standard
deviations of the difference."""


@dataclass(frozen=True)
class Ruling:
    """What a search table comes to.

    verdict, reason: the answer, and why in words. p_value: how often a clean reference model scores as high; score: the
    classifier's, the log odds of the likeliest hypothesis. found: all hypotheses by scope, the likeliest first; named:
    what is taken for an attack's, none unless the verdict is "backdoor".
    """

    verdict: Verdict
    reason: str
    p_value: float
    score: float
    found: Mapping[str, Sequence[Scored]]
    named: tuple[Named, ...]


def judge(table: SearchTable, reference: Reference, alpha: float = 0.01) -> Ruling:
    """The verdict on a classifier at a level of false alarms, alpha in (0, 1)."""
    found = reference.scored(table)
    score = largest(found)
    p_value = 1.0 if score is None else reference.p_value(score)
    certain = threshold(reference, alpha)
    further = threshold(reference, min(alpha, OVERWHELMING))
    chosen = named(table, reference.scored, certain, further) if p_value < alpha else []
    numbers = [one.log_odds for own in found.values() for one in own]
    verdict, reason = _decided(table, reference, p_value, alpha, chosen, _clearest(table, found), numbers)
    if verdict == "clean" and math.isinf(certain):
        verdict, reason = (
            "inconclusive",
            (
                f"the reference set has {len(reference.models)} clean models, too few to tell what is rare; untrojan "
                "calibrate adds some of your own"
            ),
        )
    return Ruling(verdict, reason, p_value, score or 0.0, found, tuple(chosen) if verdict == "backdoor" else ())


def threshold(reference: Reference, alpha: float) -> float:
    """The log odds from which a hypothesis would make the verdict alone; infinite if none would."""
    low, high = -1e3, 1e3
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if reference.p_value(middle) < alpha else (middle, high)
    return high if high < 1e3 else math.inf


def _decided(
    table: SearchTable,
    reference: Reference,
    p_value: float,
    alpha: float,
    chosen: Sequence[Named],
    clearest: str,
    numbers: Sequence[float],
) -> tuple[Verdict, str]:
    if not all(math.isfinite(value) for value in (p_value, *numbers)):
        return "inconclusive", "some of what the searches measured is no finite number, so that nothing can be told"
    overwhelming = p_value < OVERWHELMING and bool(chosen)
    if (fed := fed_wrongly(table.network)) is not None and not overwhelming:
        return "inconclusive", fed
    if p_value < alpha:
        outside = reference.outside(table.network)
        if outside and not overwhelming:
            return "inconclusive", f"{clearest}, but {outside[0]}, so that it cannot be told what is usual"
        if not chosen:
            return "inconclusive", f"{clearest}, but the class pairs that it moves could not be told"
        targets = sorted({member.target for one in chosen for member in one.members})
        into = f"class{'es' if len(targets) > 1 else ''} {', '.join(map(str, targets))}"
        return "backdoor", f"triggers into {into} are anomalous; {clearest}"
    if table.unreached:
        return "inconclusive", f"nothing was found in the time allowed, which did not suffice for {table.unreached[0]}"
    if failed := unsearchable(table):
        return "inconclusive", f"for most classes no {' and no '.join(failed)} trigger was found at all"
    if outside := reference.outside(table.network):
        return "inconclusive", f"nothing is anomalous, but {outside[0]}, so that it cannot be told what is usual"
    return "clean", f"no class, pair or mapping is anomalous beside clean reference models; {clearest}"


def fed_wrongly(network: Network) -> str | None:
    """What to say if the classifier is right far more often when its images are fed in another usual way, or None."""
    if not network.alternatives:
        return None
    way, right = max(network.alternatives, key=lambda one: one[1])
    count, own = sum(network.images), network.accuracy
    deviation = math.sqrt(max(own * (1 - own) + right * (1 - right), 1e-9) / max(count, 1))
    if right - own <= CERTAIN * deviation or 1 - right > FED_BETTER * (1 - own):
        return None
    return (
        f"the classifier gets {own:.0%} of the clean images right as they are fed now and {right:.0%} with {way}; "
        "check --mean, --std and the order of the channels"
    )


def unsearchable(table: SearchTable) -> tuple[str, ...]:
    """The kinds that should have found a trigger for most classes and did not; a warp need not."""
    failed = []
    for kind in table.kinds():
        rows = table.rows("target-wise", kind, 0)
        if kind != "warp" and sum(f.size is None for f in rows) > len(rows) / 2:
            failed.append(kind)
    return tuple(failed)


def _clearest(table: SearchTable, found: Mapping[str, Sequence[Scored]]) -> str:
    """The likeliest hypothesis, in words."""
    if not any(found.values()):
        return "nothing was found"
    best = max((own[0] for own in found.values() if own), key=lambda one: one.log_odds).hypothesis
    kinds = " and ".join(kinds_of(best, table)) or "no"
    return f"the clearest of {sum(map(len, found.values()))} findings is the {kinds} trigger {whence(best)}"


def whence(hypothesis: Hypothesis) -> str:
    """From where to where a hypothesis says that images go."""
    start = "all classes" if hypothesis.source is None else f"class {hypothesis.source}"
    end = "one other each" if hypothesis.target is None else f"class {hypothesis.target}"
    return f"from {start} to {end}"
