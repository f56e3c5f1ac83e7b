"""From log ratios to p-values: how often an honest classifier would look as odd as this one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from untrojan.detection.null import (
    CLASSES,
    FEWER,
    NULL,
    NULL_OF_MANY,
    PROBES,
    PROBES_OF_MANY,
    TESTS,
    TESTS_OF_MANY,
)

TOGETHER = ("patch", "additive")
"""Two kinds in which most triggers can be written: an attacker's is small in both, a chance find seldom is."""

ALIKE = ("mixed",)
"""Tests whose values lie no farther apart with fewer than ``CLASSES`` classes; those of the others do."""

EVEN = ("blend",)
"""Kinds in which honest classifiers' triggers hardly differ: the smallest into any class is about as large as the next,
and as one from all classes to any other. How far a class can be driven without any trigger explains half of what does
differ."""

FOREIGN, USUALLY_FOREIGN = 2.0, 0.37
"""By how much it raises a value that what a trigger changes inside the network is foreign to the classes, for all of it
above what usually is: a little more than a third in our own clean convolutional networks with BatchNorm, and more in
others (.75 to .99 for every class of a LeNet). So the median of the same network's other triggers takes its place where
that is larger; then a value can only become smaller, and the null stays on the safe side."""


@dataclass(frozen=True)
class Finding:
    """One trigger, and by how much it is smaller than usual (``value``, a log ratio).

    test: "target", one trigger from all classes into ``target``; "mixed", one from all classes to whatever other one;
    "pair", from ``source`` to ``target``; "single", the same trigger, by how much it stands out from the other pairs'
    as small and as sparing images of other classes (both measured by how far apart the network's pairs are:
    ``SPREAD``); "source", from ``source`` to whatever other one; "margin", no trigger but the margin ``target`` can
    reach, and by how much that is *larger*. number: which of several starts. candidates: how many values of this test
    and kind were compared, in effect. partner: where two kinds are judged together, what the other kind ``says`` of the
    same classes; third: the blend's as well, for a single pair. easy: what ``value`` of a kind of ``EVEN`` is less by,
    since ``target`` can be reached far without a trigger, too. foreign: how much of what the trigger changes inside the
    network is foreign to the classes, a share (``foreign_share``), where that counts and could be measured;
    usually_foreign: the same of the network's other triggers of the kind, or ``USUALLY_FOREIGN``. many: if
    the classifier has more than ``MANY`` classes, compared in another way and judged by another null; few: if fewer
    than ``CLASSES``, where values lie farther apart.
    """

    test: str
    kind: str
    value: float
    size: float
    candidates: int
    source: int | None = None
    target: int | None = None
    number: int = 0
    plausible: bool = True
    partner: float | None = None
    third: float | None = None
    many: bool = False
    easy: float = 0.0
    few: bool = False
    foreign: float | None = None
    usually_foreign: float = USUALLY_FOREIGN

    @property
    def law(self) -> str:
        """Which null applies: the kind, or those that are judged together."""
        if self.partner is None:
            return self.kind
        return "+".join(TOGETHER if self.third is None else (*TOGETHER, *EVEN))

    @property
    def other_kinds(self) -> tuple[str, ...]:
        """The kinds that are judged together with this one."""
        return tuple(kind for kind in self.law.split("+") if kind != self.kind)

    @property
    def statistic(self) -> float:
        """What is compared with the null: the mean of the kinds judged together, or what this one ``says``."""
        others = [said for said in (self.partner, self.third) if said is not None]
        return (self.says + sum(others)) / (1 + len(others))

    @property
    def says(self) -> float:
        """``value`` less ``easy``, raised or lowered for what is more or less ``foreign`` than usual."""
        strange = 0.0 if self.foreign is None else FOREIGN * (self.foreign - self.usually_foreign)
        return self.value - self.easy + strange

    @property
    def z(self) -> float:
        """``statistic`` in the scale of its test's null: comparable between tests and kinds."""
        return standardised(self.test, self.law, self.statistic, self.candidates, self.many, self.few)

    @property
    def p_value(self) -> float:
        """How often the largest value of this test and kind is at least this in an honest classifier; 1 for a trigger
        that is too large to be an attacker's, and for a single pair's blend alone."""
        return gumbel_tail(self.z) if self.plausible else 1.0

    @property
    def corrected(self) -> float:
        """``p_value`` for all that a scan tries."""
        return corrected(self.p_value, self.many)


def standardised(test: str, law: str, value: float, candidates: int, many: bool = False, few: bool = False) -> float:
    """(value - location) / scale of the Gumbel null, whose scale is another below its location than above, for the
    largest of ``candidates`` values; ``many``, ``few``: of a classifier with more than ``MANY`` or fewer than
    ``CLASSES`` classes."""
    nulls = NULL | NULL_OF_MANY if many else NULL_OF_MANY | NULL  # a test that one of them lacks is judged by the other
    location, above, below = nulls[test, law]
    scale = above * (FEWER if few and test not in ALIKE else 1.0) if value > location else below
    # Of fewer classes the largest of fewer values is judged, but they differ more, and fewer tell what is usual.
    return (value - location) / scale - math.log(max(candidates / usual_candidates(test, many), 1.0))


def usual_candidates(test: str, many: bool = False) -> int:
    """How many values the null of a test was fitted to the largest of."""
    probes = PROBES_OF_MANY if many else PROBES
    return {"pair": CLASSES * (CLASSES - 1), "single": CLASSES * (CLASSES - 1), "mixed": probes}.get(test, CLASSES)


def gumbel_tail(z: float) -> float:
    """P(Z > z) of the standard Gumbel distribution.

    >>> round(gumbel_tail(0.0), 4), round(gumbel_tail(4.6), 4)
    (0.6321, 0.01)
    """
    return -math.expm1(-math.exp(-max(z, -30.0)))


def union(p_value: float, tests: float) -> float:
    """The p-value of the smallest of as many as ``tests`` independent ones (Sidak).

    >>> round(union(0.01, 5.0), 4)
    0.049
    """
    return -math.expm1(tests * math.log1p(-min(p_value, 1 - 1e-12)))


def corrected(p_value: float, many: bool = False) -> float:
    """The smallest p-value of a scan for all that it tried; many: of a classifier with more than ``MANY`` classes."""
    return union(p_value, TESTS_OF_MANY if many else TESTS)


def verdict_p_value(findings: Sequence[Finding]) -> float:
    """The p-value of the victim: the smallest one of all, corrected for how many tests there were in effect."""
    return min((f.corrected for f in findings), default=1.0)


def significant(findings: Sequence[Finding], alpha: float) -> list[Finding]:
    """Those that would alone make the verdict, the clearest first."""
    return sorted((f for f in findings if f.corrected < alpha), key=lambda f: -f.z)


FOR_ALL = ("target", "mixed")
"""The tests that are about one trigger for all classes."""


def together(findings: Sequence[Finding]) -> list[Finding]:
    """What both kinds of ``TOGETHER`` say about the same classes, as findings of the one that says it more clearly; for
    a single pair with what its blend says, if there is one."""
    blends = {(f.source, f.target): f.says for f in findings if f.test == "single" and f.kind in EVEN}
    kinds: list[dict[tuple[str, int | None, int | None], Finding]] = [{}, {}]
    for finding in sorted(findings, key=lambda f: f.says):  # of several starts the best one counts
        if finding.kind in TOGETHER:
            kinds[TOGETHER.index(finding.kind)][finding.test, finding.source, finding.target] = finding
    first, second = kinds
    both = [(first[key], second[key]) for key in first if key in second]
    ordered = [sorted(pair, key=lambda f: -f.z) for pair in both]
    return [
        replace(
            clear,
            partner=other.says,
            third=blends.get((clear.source, clear.target)) if clear.test == "single" else None,
        )
        for clear, other in ordered
    ]


def with_triggers(odd: Sequence[Finding], findings: Sequence[Finding]) -> list[Finding]:
    """The odd findings, each with a trigger: for a margin stands in what is oddest of the triggers into its class."""
    best: dict[int | None, Finding] = {}
    for finding in sorted(findings, key=lambda f: (f.plausible, f.z)):
        if finding.test == "target" and finding.partner is None:
            best[finding.target] = finding
    chosen = [best.get(f.target) if f.test == "margin" else f for f in odd]
    return [f for f in chosen if f is not None]


def to_follow(odd: Sequence[Finding]) -> list[Finding]:
    """The odd findings without single pairs, unless these are odder than any trigger for all classes.

    With an all-to-one or all-to-all attack most pairs' triggers move other classes as the attacker's does, and a pair
    that has nothing to do with it stands out by not doing so.
    """
    for_all = max((f.z for f in odd if f.test in FOR_ALL), default=-math.inf)
    return [f for f in odd if f.test != "single" or f.z > for_all]
