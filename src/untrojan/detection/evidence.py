"""From a ruling to the rows of a report: the evidence, and a score for every pair that was searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from untrojan.detection.anomaly import anomaly_scores
from untrojan.detection.features import Hypothesis
from untrojan.detection.judge import Ruling
from untrojan.detection.localise import Member, kinds_of, row_of
from untrojan.detection.reference import Reference
from untrojan.detection.score import Scored
from untrojan.detection.table import Found, SearchTable
from untrojan.records import Evidence, PairScore

SHOWN = 3
"""Hypotheses of a scope that a report has, beside those that are named."""


def evidence_of(ruling: Ruling, table: SearchTable, reference: Reference) -> tuple[Evidence, ...]:
    """The named hypotheses, then the likeliest others of every scope, each with how rare its log odds are."""
    about = {n.hypothesis.about: n.log_odds for n in ruling.named}
    shown = [
        one
        for own in ruling.found.values()
        for place, one in enumerate(own)
        if place < SHOWN or one.hypothesis.about in about
    ]
    # What was named is as likely as it was when it was named, what is explained by the others taken out.
    shown = [replace(one, log_odds=about.get(one.hypothesis.about, one.log_odds)) for one in shown]
    ordered = sorted(shown, key=lambda one: (one.hypothesis.about not in about, -one.log_odds))
    rows = (_evidence(one, table, reference.p_value(one.log_odds)) for one in ordered)
    return tuple(row for row in rows if row is not None)


def _evidence(one: Scored, table: SearchTable, p_value: float) -> Evidence | None:
    hypothesis = one.hypothesis
    kinds = kinds_of(hypothesis, table)
    for kind in kinds:
        row = row_of(table, hypothesis, kind)
        usual = None if row is None else usual_size(table, hypothesis, kind, row)
        if row is not None and row.size is not None and usual is not None:
            return Evidence(
                scope=hypothesis.scope,
                kinds=kinds,
                source=hypothesis.source,
                target=hypothesis.target,
                size=row.size,
                ratio=usual / max(row.size, 1e-9),
                log_odds=one.log_odds,
                p_value=p_value,
                off_subspace=row.off_subspace,
            )
    return None


def usual_size(table: SearchTable, hypothesis: Hypothesis, kind: str, own: Found) -> float | None:
    """The median size of what a hypothesis's trigger is compared with: the others of its scope, or, of an untargeted
    one, those into one class; None if there are none."""
    scope = "target-wise" if hypothesis.scope == "untargeted" else hypothesis.scope
    others = [f.size for f in table.latest(scope, kind).values() if f.size is not None and f is not own]
    return float(np.median(others)) if others else None


def pair_scores(table: SearchTable, members: Sequence[Member]) -> tuple[PairScore, ...]:
    """A row for every pair and kind that was searched, and for every detected one; the score is the paper's (BNA, Apdx
    C): the distance of 1 / size from the median, in median absolute deviations, of the pairs of the kind, or, where
    these were not searched, of the triggers into one class."""
    rows: list[PairScore] = []
    detected = {(m.source, m.target, m.kind): m.size for m in members}
    for kind in table.kinds():
        sizes: dict[tuple[int, int], float | None] = {
            (s, t): f.size
            for (s, t, _), f in table.latest("pair-wise", kind).items()
            if s is not None and t is not None
        }
        others = [_statistic(f.size) for f in table.rows("target-wise", kind, 0)] if not sizes else []
        hits = {(s, t): size for (s, t, of), size in detected.items() if of == kind}
        sizes |= {pair: min(size, sizes.get(pair) or size) for pair, size in hits.items()}
        scores = _scores([_statistic(size) for size in sizes.values()], others)
        for ((s, t), size), score in zip(sizes.items(), scores, strict=True):
            shown = None if size is None else score
            rows.append(PairScore(source=s, target=t, kind=kind, size=size, score=shown, detected=(s, t) in hits))
    return tuple(rows)


def _statistic(size: float | None) -> float:
    return 0.0 if size is None else 1 / max(size, 1e-9)


def _scores(statistics: Sequence[float], others: Sequence[float]) -> list[float]:
    """Among each other, or, where there are others, each beside these."""
    if not others:
        return [float(score) for score in anomaly_scores(statistics)]
    return [float(anomaly_scores([*others, one])[-1]) for one in statistics]
