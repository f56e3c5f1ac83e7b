"""From features to one score: a weighted sum for every hypothesis, and the largest of a network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from untrojan.detection.features import Hypothesis, mapping_hypothesis, pair_hypotheses, target_hypotheses
from untrojan.detection.table import SearchTable

MOST = 4.0
"""A value counts for this much at most, either way: of ten classes a trigger that is more than six times as small as
any other is no clearer than that, of three one of forty times. Without, the weights rest on the clearest attacks."""
SCOPES = ("target-wise", "pair-wise", "untargeted")


@dataclass(frozen=True)
class Scored:
    """A hypothesis and its log odds: how much more often it is an attack's than not, in the reference set."""

    hypothesis: Hypothesis
    log_odds: float


def hypotheses(table: SearchTable) -> dict[str, list[Hypothesis]]:
    """All hypotheses about a classifier, by scope."""
    return {
        "target-wise": target_hypotheses(table),
        "pair-wise": pair_hypotheses(table),
        "untargeted": [mapping_hypothesis(table)],
    }


def log_odds(hypothesis: Hypothesis, weights: Mapping[str, float], among: int) -> float:
    """The weighted sum of a hypothesis's values, less the logarithm of how many there are of its scope: an attacker
    chose one of them. A value without a weight counts for nothing; "intercept" is added.

    >>> log_odds(Hypothesis("untargeted", None, None, {"mapping": 0.5}), {"mapping": 4.0, "intercept": -1.0}, 1)
    1.0
    """
    total = 0.0
    for name, weight in weights.items():
        if name != "intercept":
            total += weight * min(max(hypothesis.values.get(name, 0.0), -MOST), MOST)
    return total + weights.get("intercept", 0.0) - math.log(max(among, 1))


def scored(
    found: Mapping[str, Sequence[Hypothesis]], weights: Mapping[str, Mapping[str, float]]
) -> dict[str, list[Scored]]:
    """The hypotheses of every scope that there is something of, the likeliest first."""
    return {
        scope: sorted((Scored(h, log_odds(h, weights[scope], len(own))) for h in own), key=lambda one: -one.log_odds)
        for scope, own in found.items()
        if own and scope in weights
    }


def largest(found: Mapping[str, Sequence[Scored]]) -> float | None:
    """The log odds of the likeliest hypothesis of all scopes: a network's score. None if there is no hypothesis."""
    return max((own[0].log_odds for own in found.values() if own), default=None)
