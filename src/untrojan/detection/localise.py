"""From scored hypotheses to the pairs of classes that an attacker's trigger moves: what is found, and what explains it.

The likeliest hypothesis comes first, and what its trigger explains is taken out before the next one is asked for:
triggers into other classes that look or work like it, and pairs that it moves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from untrojan.detection.features import COARSE, JOINT, Hypothesis, information
from untrojan.detection.score import Scored
from untrojan.detection.table import Found, SearchTable, counts_of

Pair = tuple[int, int]
Score = Callable[[SearchTable], Mapping[str, Sequence[Scored]]]

MOVED = 0.25
"""Share of a class's images that a trigger has to move for the class to be a source: the smallest trigger for some
classes is weak for others."""
NEARLY, SOME, MOST_OF = 0.75, 0.1, 0.5
"""Of a mapping: the share of the clearest trigger's information that another needs to count as well; the share of a
class's images that these have to move to one class, on average; and the share of those moved at all that go there."""
ALIKE = 0.5
"""Cosine from which two triggers of a kind are taken for variants of one: half-way between nothing in common and the
same."""
CLEAR = 0.5
"""Share of the anomaly of its clearest kind that another kind needs to count as well."""


@dataclass(frozen=True)
class Member:
    """A pair of classes that a trigger moves; size: of the trigger, in the unit of its kind."""

    source: int
    target: int
    kind: str
    size: float


@dataclass(frozen=True)
class Named:
    """A hypothesis taken for an attack's, its log odds, the kinds that show it (the clearest first), and the pairs it
    moves."""

    hypothesis: Hypothesis
    log_odds: float
    kinds: tuple[str, ...]
    members: tuple[Member, ...]


def kinds_of(hypothesis: Hypothesis, table: SearchTable) -> tuple[str, ...]:
    """The kinds in which a hypothesis is anomalous, the clearest first.

    A blend is the coarsest description of a trigger: whatever moves all pixels a little is small as one. It is left
    out, unless it is more than twice as clear as all others.
    """
    clear = {}
    for kind in table.kinds():
        row = row_of(table, hypothesis, kind)
        if row is not None and row.size is not None:
            value = hypothesis.values.get(f"{kind} under", 0.0) + hypothesis.values.get(f"{kind} lead", 0.0)
            clear[kind] = value * (COARSE if kind == "blend" else 1.0)
    ordered = sorted(clear, key=lambda kind: -clear[kind])
    best = max(clear[ordered[0]], 0.0) if ordered else 0.0
    kept = [kind for kind in ordered if clear[kind] >= CLEAR * best and clear[kind] > 0]
    return tuple(kept[:1] + [kind for kind in kept[1:] if kind != "blend"]) or tuple(ordered[:1])


def named(table: SearchTable, score: Score, certain: float, further: float) -> list[Named]:
    """What is taken for an attack's, the likeliest first.

    score: from a table to the hypotheses of every scope; it is asked again once a target was named, of the table
    without that, so that a second one is compared with the classes that are left. certain: the log odds from which a
    hypothesis counts; further: those from which another does beside one that is named.
    """
    chosen: list[Named] = []
    left, tried = table, set[tuple[str, int | None, int | None]]()
    while True:
        likely = [
            (one.log_odds, one.hypothesis)
            for own in score(left).values()
            for one in own
            if one.log_odds >= (further if chosen else certain) and one.hypothesis.about not in tried
        ]
        if not likely:
            return chosen
        log_odds, hypothesis = max(likely, key=lambda row: row[0])
        tried.add(hypothesis.about)
        if any(explains(table, earlier, hypothesis) for earlier in chosen):
            continue
        kinds = kinds_of(hypothesis, table)
        members = members_of(table, hypothesis, kinds[0]) if kinds else ()
        if members:
            if hypothesis.scope == "target-wise":  # what moves all classes moves the pair that was named before
                chosen = [one for one in chosen if one.hypothesis.target != hypothesis.target]
            chosen.append(Named(hypothesis, log_odds, kinds, members))
            if hypothesis.scope != "pair-wise":
                left = without(left, {member.target for member in members})


def without(table: SearchTable, targets: set[int]) -> SearchTable:
    """The table without what was searched into these classes. Where untargeted triggers send images stays, since few
    go elsewhere; so of two targets the second has to be the clearer."""
    rows = tuple(f for f in table.found if f.target not in targets)
    reach = tuple(math.nan if t in targets else value for t, value in enumerate(table.network.reach))
    alike = tuple(replace(one, inside=_blanked(one.inside, targets)) for one in table.likeness)
    return replace(table, found=rows, likeness=alike, network=replace(table.network, reach=reach))


def _blanked(cosines: Sequence[float], targets: set[int]) -> tuple[float, ...]:
    """Cosines of each two classes, K x K row by row, NaN where one of them is among the targets."""
    square = np.array(cosines).reshape(math.isqrt(len(cosines)), -1)
    square[sorted(targets)] = square[:, sorted(targets)] = math.nan
    return tuple(square.ravel().tolist())


def explains(table: SearchTable, earlier: Named, later: Hypothesis) -> bool:
    """Whether a trigger that was found explains what speaks for another hypothesis."""
    targets = {member.target for member in earlier.members}
    alone = earlier.hypothesis.scope == "pair-wise"
    if len(targets) > 1 or (later.target in targets and not alone):  # one trigger sends each class to one of its own
        return True
    if later.scope == "untargeted":  # what moves all classes, and sends most of them to the target that is known
        rows = [f for kind in JOINT for f in table.rows("untargeted", kind) if f.sent is not None]
        return not rows or any(_share_into(f, targets, table.network.classes) >= MOST_OF for f in rows)
    if later.scope == "pair-wise":  # beside a trigger for all classes, pairs differ in how it moves them
        return not alone
    return later.target not in targets and any(
        likeness(table, kind, target, later.target) >= ALIKE
        for kind in earlier.kinds
        for target in targets
        if later.target is not None
    )


def likeness(table: SearchTable, kind: str, one: int, other: int) -> float:
    """How alike the triggers of a kind into two classes are, in look or inside: the larger cosine, 0 where unknown."""
    classes = table.network.classes
    for alike in table.likeness:
        if alike.kind == kind:
            values = [alike.look[one * classes + other], alike.inside[one * classes + other]]
            return float(np.nanmax([*values, 0.0]))
    return 0.0


def members_of(table: SearchTable, hypothesis: Hypothesis, kind: str) -> tuple[Member, ...]:
    """The pairs that the trigger of a hypothesis moves."""
    row = row_of(table, hypothesis, kind)
    if row is None or row.size is None:
        return ()
    if hypothesis.target is None:
        return tuple(Member(s, t, kind, row.size) for s, t in mapping_of(table))
    counts = counts_of(row, table.network.classes)
    if hypothesis.scope == "pair-wise" and hypothesis.source is not None:
        return (Member(hypothesis.source, hypothesis.target, kind, row.size),)
    if counts is None:  # it was not tried out, as with many classes: then all are taken for sources
        known = [s for s, images in enumerate(table.network.images) if images and s != hypothesis.target]
        return tuple(Member(s, hypothesis.target, kind, row.size) for s in known)
    shares = counts[:, hypothesis.target] / np.maximum(counts.sum(1), 1)
    sources = [s for s, share in enumerate(shares) if s != hypothesis.target and share >= MOVED]
    return tuple(Member(s, hypothesis.target, kind, row.size) for s in sources)


def mapping_of(table: SearchTable) -> list[Pair]:
    """Where one trigger sends each class, by all untargeted triggers that say nearly as much as the clearest.

    Each is the smallest that moves half of all images, so that it leaves some classes where they are, others each.
    """
    classes = table.network.classes
    tried = [c for f in table.rows("untargeted") if (c := counts_of(f, classes)) is not None]
    told = [information(counts) for counts in tried]
    clear = [counts for counts, one in zip(tried, told, strict=True) if one >= NEARLY * max(told)]
    if not clear:
        return []
    shares = np.mean([c / np.maximum(c.sum(1, keepdims=True), 1) for c in clear], axis=0)
    np.fill_diagonal(shares, 0.0)
    goals = [(s, int(row.argmax()), float(row.max()), float(row.sum())) for s, row in enumerate(shares)]
    return [(s, t) for s, t, most, moved in goals if most >= SOME and most >= MOST_OF * moved]


def row_of(table: SearchTable, hypothesis: Hypothesis, kind: str) -> Found | None:
    """The trigger that stands for a hypothesis: of untargeted ones the one that says most of where each class goes."""
    if hypothesis.scope == "target-wise":
        return table.latest("target-wise", kind).get((None, hypothesis.target, 0))
    if hypothesis.scope == "pair-wise":
        return table.latest("pair-wise", kind).get((hypothesis.source, hypothesis.target, 0))
    rows = [f for f in table.rows("untargeted", kind) if f.size is not None]
    classes = table.network.classes
    told = [(information(counts), f) for f in rows if (counts := counts_of(f, classes)) is not None]
    return max(told, key=lambda one: one[0])[1] if told else None


def _share_into(found: Found, targets: set[int], classes: int) -> float:
    """The share of the moved images that goes to these classes."""
    counts = counts_of(found, classes)
    if counts is None:
        return 0.0
    moved = counts * (1 - np.eye(classes))
    return float(moved[:, sorted(targets)].sum() / max(moved.sum(), 1.0))
