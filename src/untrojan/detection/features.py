"""From a search table to a few numbers for every hypothesis: which class, pair or mapping an attacker may have used.

Most are a class, pair or mapping against the others of the same network: a difference of logarithms, of log odds where
it is a share, or of cosines. They know no unit, and no number of one network meets one of another. (In units of how far
the others lie apart they tell less: a trigger twelve times as small as any other counted for little where the others
differ much.) Among many classes the smallest trigger leads by less than among few, if by chance, so that leads are
multiplied by the log of the number of classes; so is what else is of the size of a class's or a pair's trigger, which
then tells more, and clean networks of few and of many classes score alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from untrojan.detection.ranking import expected_sizes
from untrojan.detection.table import Found, SearchTable, counts_of

Array = NDArray[np.float64]
Pair = tuple[int, int]
Key = TypeVar("Key", bound=Hashable)

JOINT = ("patch", "additive")
"""Jointly scored kinds: most triggers can be written as either, and an attacker's is small in both."""
OTHERS, COARSE = ("blend", "warp"), 0.5
"""Kinds that count for half where the clearest is asked for: whatever moves all pixels a little is small as a blend,
and the search for a warp is the least exact. At that, clean networks score no higher than without them."""
RARE = 1e-3
"""Shares are kept so far from 0 and 1 before their log odds are taken."""


@dataclass(frozen=True)
class Hypothesis:
    """One thing that an attacker may have done, and what speaks for it.

    scope: "target-wise", "pair-wise" or "untargeted"; source, target: None for all or whatever other. values: by name.
    """

    scope: Literal["target-wise", "pair-wise", "untargeted"]
    source: int | None
    target: int | None
    values: Mapping[str, float]

    @property
    def about(self) -> tuple[str, int | None, int | None]:
        """What it is about, whatever speaks for it."""
        return self.scope, self.source, self.target


def under(values: Mapping[Key, float]) -> dict[Key, float]:
    """By how much each value is below the median of the others; 0 without others."""
    return _below(values, np.median)


def lead(values: Mapping[Key, float]) -> dict[Key, float]:
    """By how much each value is below the smallest of the others; 0 without others.

    >>> lead({"a": 1.0, "b": 3.0, "c": 3.5})
    {'a': 2.0, 'b': -2.0, 'c': -2.5}
    """
    return _below(values, np.min)


def _below(values: Mapping[Key, float], centre: Callable[[Array], Any]) -> dict[Key, float]:
    found = {}
    for key, value in values.items():
        others = np.array([v for other, v in values.items() if other != key])
        found[key] = float(centre(others)) - value if others.size else 0.0
    return found


def log_sizes(rows: Sequence[Found]) -> list[float]:
    """Where no trigger was found, the largest that was stands in; none at all if there is none."""
    known = [math.log(max(f.size, 1e-9)) for f in rows if f.size is not None]
    if not known:
        return []
    return [max(known) if f.size is None else math.log(max(f.size, 1e-9)) for f in rows]


def log_odds(share: float) -> float:
    """The log odds of a share from 0 to 1."""
    share = min(max(share, RARE), 1 - RARE)
    return math.log(share / (1 - share))


def by_target(table: SearchTable, kind: str) -> dict[int, float]:
    """The log size of the trigger into each class, by the first searches, which are alike for all."""
    rows = [f for f in table.rows("target-wise", kind, 0) if f.target is not None]
    return {int(f.target or 0): size for f, size in zip(rows, log_sizes(rows), strict=False)}


def from_each(table: SearchTable, kind: str) -> dict[int, float]:
    """The median log size of the triggers of single classes into each class; none where pairs were not searched."""
    rows = [f for f in table.rows("pair-wise", kind, 0) if f.target is not None]
    into: dict[int, list[float]] = {}
    for f, size in zip(rows, log_sizes(rows), strict=False):
        into.setdefault(int(f.target or 0), []).append(size)
    return {t: float(np.median(sizes)) for t, sizes in into.items()}


def target_hypotheses(table: SearchTable) -> list[Hypothesis]:
    """One for every class, as the target of a trigger for all classes."""
    many = math.log(table.network.classes)
    columns: dict[str, dict[int, float]] = {"drawn": drawn(table), "unlike": unlike(table)}
    for kind in table.kinds():
        sizes, single = by_target(table, kind), from_each(table, kind)
        for name, own in (("lead", lead(sizes)), ("under", under(sizes))):
            columns[f"{kind} {name}"] = {t: many * value for t, value in own.items()}
        columns[f"{kind} outside"] = outside(table.rows("target-wise", kind, 0), lambda f: f.target)
        columns[f"{kind} universal"] = under({t: sizes[t] - single[t] for t in sizes if t in single})
    reach = {t: -math.log(max(m, 1e-3)) for t, m in enumerate(table.network.reach) if math.isfinite(m)}
    columns["reach"] = under(reach)
    columns |= joint(columns, ("lead", "under", "outside", "universal"))
    columns["clearest lead"] = clearest(columns, "lead")
    return [
        Hypothesis("target-wise", None, t, {name: column.get(t, 0.0) for name, column in columns.items()})
        for t in sorted({f.target for f in table.rows("target-wise") if f.target is not None})
    ]


def drawn(table: SearchTable) -> dict[int, float]:
    """How much of what untargeted triggers move goes to each class: the mean share over the jointly scored kinds' ones,
    from 0 to 1. Where an attacker's trigger is the smallest of all, they end at it, and images at its target; from the
    same starts a clean network's end at several classes."""
    classes = table.network.classes
    shares = []
    for kind in JOINT:
        for f in table.rows("untargeted", kind):
            if (counts := counts_of(f, classes)) is not None:
                moved = (counts * (1 - np.eye(classes))).sum(0)
                shares.append(moved / max(moved.sum(), 1.0))
    return dict(enumerate(np.mean(shares, axis=0).tolist())) if shares else {}


def unlike(table: SearchTable) -> dict[int, float]:
    """By how much less each class's trigger resembles the other classes' inside than theirs resemble each other: of the
    mean cosine with the others' activation shifts outside the class subspace, how far it is below the median of the
    others; the mean over the kinds that have one. What an attacker planted is something of its own."""
    classes = table.network.classes
    found: dict[int, list[float]] = {}
    for alike in table.likeness:
        cosines = np.array(alike.inside).reshape(classes, classes)
        np.fill_diagonal(cosines, np.nan)
        means = {t: float(row[known].mean()) for t, row in enumerate(cosines) if (known := np.isfinite(row)).any()}
        for t, value in under(means).items():
            found.setdefault(t, []).append(value)
    return {t: float(np.mean(values)) for t, values in found.items()}


def outside(rows: Sequence[Found], key: Callable[[Found], Key | None]) -> dict[Key, float]:
    """By how much more of each trigger's activation shift lies outside the class subspace than the others' median."""
    shares = {k: -log_odds(f.off_subspace) for f in rows if (k := key(f)) is not None and f.off_subspace is not None}
    return under(shares)


def joint(columns: Mapping[str, Mapping[int, float]], names: Sequence[str]) -> dict[str, dict[int, float]]:
    """Of each feature the mean over the jointly scored kinds, where both have it; as "joint NAME"."""
    found = {}
    for name in names:
        own = [columns[f"{kind} {name}"] for kind in JOINT if f"{kind} {name}" in columns]
        shared = set.intersection(*map(set, own)) if len(own) == len(JOINT) else set[int]()
        found[f"joint {name}"] = {key: sum(column[key] for column in own) / len(own) for key in shared}
    return found


def clearest(columns: Mapping[str, Mapping[int, float]], name: str) -> dict[int, float]:
    """Of a feature the largest over all kinds, those that are not jointly scored for less (``COARSE``)."""
    own = {column: 1.0 if column.split()[0] in JOINT else COARSE for column in columns if column in _of_kinds(name)}
    keys = set[int]().union(*(columns[column] for column in own))
    return {key: max(share * columns[column].get(key, 0.0) for column, share in own.items()) for key in keys}


def _of_kinds(name: str) -> tuple[str, ...]:
    return tuple(f"{kind} {name}" for kind in (*JOINT, *OTHERS))


def pair_hypotheses(table: SearchTable) -> list[Hypothesis]:
    """One for every pair that was searched on in a jointly scored kind."""
    pairs = sorted({(f.source, f.target) for f in table.rows("pair-wise") if f.stage > 0 and f.kind in JOINT})
    places = {(int(s or 0), int(t or 0)): n for n, (s, t) in enumerate(pairs)}
    columns: dict[str, dict[int, float]] = {}
    many = math.log(table.network.classes)
    for kind in (*JOINT, "blend"):
        last = {(s, t): f for (s, t, _), f in table.latest("pair-wise", kind).items()}
        known = {n: last[pair] for pair, n in places.items() if pair in last and last[pair].size is not None}
        sizes = {n: math.log(max(f.size or 1e-9, 1e-9)) for n, f in known.items()}
        spared = {n: math.log(f.off_target + RARE) for n, f in known.items() if f.off_target is not None}
        shares = {n: -log_odds(f.off_subspace) for n, f in known.items() if f.off_subspace is not None}
        for name, own in (("lead", lead(sizes)), ("under", under(sizes)), ("spares", under(spared))):
            columns[f"{kind} {name}"] = {n: many * value for n, value in own.items()}
        columns[f"{kind} outside"] = under(shares)
        if kind in JOINT:
            rest = unexpected(table, kind)
            columns[f"{kind} unexpected"] = {n: rest[pair] for pair, n in places.items() if pair in rest}
            into = by_target(table, kind)
            alone = {n: sizes[n] - into[pair[1]] for pair, n in places.items() if n in sizes and pair[1] in into}
            columns[f"{kind} alone"] = under(alone)
    columns |= joint(columns, ("lead", "under", "spares", "outside", "unexpected", "alone"))
    return [
        Hypothesis("pair-wise", s, t, {name: column.get(n, 0.0) for name, column in columns.items()})
        for (s, t), n in places.items()
    ]


def unexpected(table: SearchTable, kind: str) -> dict[Pair, float]:
    """By how much the log size of each pair's first trigger is below what its classes and their margin let expect."""
    rows = [f for f in table.rows("pair-wise", kind, 0) if f.source is not None and f.target is not None]
    classes = table.network.classes
    logs = np.full((classes, classes), np.nan)
    for f, size in zip(rows, log_sizes(rows), strict=False):
        logs[f.source, f.target] = size
    rest = expected_sizes(logs, log_margins(table)) - logs
    return {
        (int(f.source or 0), int(f.target or 0)): float(rest[f.source, f.target])
        for f in rows
        if np.isfinite(rest[f.source, f.target])
    }


def log_margins(table: SearchTable) -> Array:
    """The log of the mean margin between each two classes on clean images, float64 [K, K]; those under a tenth of the
    median count as that, so that a class which is confused with another cannot reach infinity."""
    gaps = table.network.gaps()
    known = gaps[np.isfinite(gaps)]
    floor = max(0.1 * float(np.median(known)), 1e-6) if known.size else 1e-6
    return np.asarray(np.log(np.maximum(gaps, floor)))


def mapping_hypothesis(table: SearchTable) -> Hypothesis:
    """That one trigger sends each class to one of its own: how small it is beside those into one class, how much the
    class of an image says of where it goes, and what it changes inside."""
    values: dict[str, float] = {"mapping": 0.0, "classes": math.log(table.network.classes)}
    for kind in table.kinds():
        into = sorted(by_target(table, kind).values())
        probes = [f for f in table.rows("untargeted", kind) if f.size is not None]
        if not probes or not into:
            continue
        usual = into[min(1, len(into) - 1)]
        values[f"{kind} under"] = max(usual - math.log(max(f.size or 1e-9, 1e-9)) for f in probes)
        told = [information(counts) for f in probes if (counts := counts_of(f, table.network.classes)) is not None]
        values[f"{kind} mapping"] = max(told, default=0.0)
        shares = [log_odds(f.off_subspace) for f in table.rows("target-wise", kind, 0) if f.off_subspace is not None]
        own = [log_odds(f.off_subspace) for f in probes if f.off_subspace is not None]
        if shares and own:
            values[f"{kind} outside"] = max(own) - float(np.median(shares))
    values["mapping"] = max((v for name, v in values.items() if name.endswith(" mapping")), default=0.0)
    columns = {name: {0: value} for name, value in values.items()}
    columns["clearest under"] = clearest(columns, "under")
    values |= {name: column[0] for name, column in joint(columns, ("under", "outside")).items() if column}
    values |= {"clearest under": columns["clearest under"].get(0, 0.0)}
    return Hypothesis("untargeted", None, None, values)


def information(sent: Array) -> float:
    """How much the class of a moved image says of where it goes: the mutual information of rows and columns off the
    diagonal, less what so few counts have by chance (Miller and Madow) and what a missing diagonal makes of moves that
    are alike for all classes, as a share of the most that it can be. From 0 to 1; 0 of two classes.

    sent: counts, float64 [K, K], of images of each class and what they are taken for.
    """
    classes = len(sent)
    table = sent * (1 - np.eye(classes))
    total = float(table.sum())
    if total == 0 or classes < 3:
        return 0.0
    rows, columns = table.sum(1), table.sum(0)
    plain = _entropy(rows) + _entropy(columns) - _entropy(table.ravel())
    spare = int((table > 0).sum()) - int((rows > 0).sum()) - int((columns > 0).sum()) + 1
    told = plain - max(spare, 0) / (2 * total) - math.log(classes / (classes - 1))
    return min(max(told / math.log(classes - 1), 0.0), 1.0)


def _entropy(counts: Array) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())
