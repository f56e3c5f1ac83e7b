"""The search table: what the searches of a scan found, raw, frozen, and all that a verdict may look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Scope = Literal["target-wise", "pair-wise", "source-wise", "untargeted"]
"""From all classes into one; from one class into one; from one class to whatever other; from all classes to whatever
other."""
ENDS = {
    "target-wise": (False, True),
    "pair-wise": (True, True),
    "source-wise": (True, False),
    "untargeted": (False, False),
}
"""Whether a search of a scope has one source, and one target."""

SCHEMA = "untrojan-search-1"
ROUNDED = 1e-3
"""By how much a cosine may lie beyond 1: it is kept with few digits."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """Where one search for the smallest trigger ended.

    scope, kind: what was searched for; source, target: the classes, None for all of them or whatever other; number: of
    the start, where there are several. stage: 0 for the first search, 1 and 2 for those that went on from it. size: in
    the unit of the kind, None if nothing reached the success level; success: the share of images moved, from 0 to 1;
    steps: of the optimiser. off_subspace: the share of the activation shift that lies outside the span of the class
    means, from 0 to 1. off_target: the probability that images of other classes lose for their own class under a
    pair's trigger, from 0 to 1. sent: K x K counts, row by row: images of each class, and what they are taken for with
    the trigger. None is what was not measured.
    """

    scope: Scope
    kind: str
    size: float | None
    success: float
    steps: int
    source: int | None = None
    target: int | None = None
    number: int = 0
    stage: int = 0
    off_subspace: float | None = None
    off_target: float | None = None
    sent: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Likeness:
    """How alike the target-wise triggers of one kind are: cosines in [-1, 1], K x K row by row, NaN where unknown.

    look: of what they change in the image; inside: of the part of their activation shifts outside the class subspace.
    """

    kind: str
    look: tuple[float, ...]
    inside: tuple[float, ...]


@dataclass(frozen=True)
class Network:
    """What the classifier is, and what it says of the clean images.

    images: how many clean images there are of each class; confusion: K x K counts, row by row, of what these are taken
    for. input_shape: (C, H, W); parameters: how many numbers it has learnt; layers: kinds of layer and how many of
    each. logit_gaps: K x K, row by row: the mean logit of a class less that of another, on images of the first, NaN
    on the diagonal and where there are no images. reach: the largest margin in logits that an image can be given
    towards each class, NaN where unknown. distance: the median Euclidean distance between images of different
    classes; contrast: the standard deviation of pixels within an image, both in units of [0, 1]. sureness: the mean
    probability of the answer. alternatives: other usual ways of feeding the images, and the share that is classified
    right then (``feeding``).
    """

    classes: int
    images: tuple[int, ...]
    confusion: tuple[int, ...]
    input_shape: tuple[int, int, int]
    parameters: int
    layers: tuple[tuple[str, int], ...]
    logit_gaps: tuple[float, ...]
    reach: tuple[float, ...]
    distance: float
    contrast: float
    sureness: float
    alternatives: tuple[tuple[str, float], ...] = ()

    @property
    def accuracy(self) -> float:
        """Share of the clean images that are classified right, from 0 to 1."""
        counts = np.array(self.confusion).reshape(self.classes, self.classes)
        return float(np.trace(counts) / max(counts.sum(), 1))

    def gaps(self) -> Array:
        """``logit_gaps`` as float64 [K, K]."""
        return np.array(self.logit_gaps, dtype=np.float64).reshape(self.classes, self.classes)


@dataclass(frozen=True)
class SearchTable:
    """Everything that the searches found about one classifier; a verdict is a function of it alone.

    found: in the order of the searches; likeness: by kind; unreached: what the time allowed did not suffice for, in
    words.
    """

    network: Network
    found: tuple[Found, ...]
    likeness: tuple[Likeness, ...] = ()
    unreached: tuple[str, ...] = ()
    victim: str = ""
    seed: int = 0
    version: str = ""
    schema: str = field(default=SCHEMA)

    def rows(self, scope: Scope, kind: str | None = None, stage: int | None = None) -> list[Found]:
        """Those of a scope, and of a kind and stage if these are given, in their order."""
        return [
            f for f in self.found if f.scope == scope and kind in (None, f.kind) and (stage is None or stage == f.stage)
        ]

    def kinds(self) -> tuple[str, ...]:
        """The kinds of trigger that were searched for, in their order."""
        return tuple(dict.fromkeys(f.kind for f in self.found))

    def latest(self, scope: Scope, kind: str) -> dict[tuple[int | None, int | None, int], Found]:
        """By source, target and number, the last search that found something, else the first."""
        last: dict[tuple[int | None, int | None, int], Found] = {}
        for f in sorted(self.rows(scope, kind), key=lambda f: f.stage):
            key = f.source, f.target, f.number
            if key not in last or f.size is not None:
                last[key] = f
        return last


def counts_of(found: Found, classes: int) -> Array | None:
    """``sent`` as float64 [K, K], or None."""
    return None if found.sent is None else np.array(found.sent, dtype=np.float64).reshape(classes, classes)


def plain(table: SearchTable) -> dict[str, Any]:
    """A table as plain values: one row of a parquet file (``table_files``)."""
    network = {name: getattr(table.network, name) for name in Network.__dataclass_fields__}
    return {
        "schema": table.schema,
        "victim": table.victim,
        "seed": table.seed,
        "version": table.version,
        "unreached": list(table.unreached),
        "network": network
        | {
            "layers": [{"kind": kind, "count": count} for kind, count in table.network.layers],
            "alternatives": [{"way": way, "right": right} for way, right in table.network.alternatives],
        },
        "found": [{name: getattr(f, name) for name in Found.__dataclass_fields__} for f in table.found],
        "likeness": [{name: getattr(one, name) for name in Likeness.__dataclass_fields__} for one in table.likeness],
    }


def from_plain(row: dict[str, Any]) -> SearchTable:
    """The inverse of ``plain``. Raises KeyError, TypeError or ValueError for what no table is."""
    if row["schema"] != SCHEMA:
        raise ValueError(f"schema {row['schema']}, this version reads {SCHEMA}")
    given = row["network"]
    classes, shape = int(given["classes"]), [int(n) for n in given["input_shape"]]
    if classes < 2 or len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"a network of {classes} classes for images of shape {shape}")
    network = Network(
        classes=classes,
        images=_numbers(given["images"], classes),
        confusion=_numbers(given["confusion"], classes**2),
        input_shape=(shape[0], shape[1], shape[2]),
        parameters=int(given["parameters"]),
        layers=tuple((str(one["kind"]), int(one["count"])) for one in given["layers"]),
        logit_gaps=_reals(given["logit_gaps"], classes**2),
        reach=_reals(given["reach"], classes),
        distance=float(given["distance"]),
        contrast=float(given["contrast"]),
        sureness=float(given["sureness"]),
        alternatives=tuple((str(one["way"]), float(one["right"])) for one in given["alternatives"]),
    )
    likeness = tuple(
        Likeness(str(one["kind"]), _cosines(one["look"], classes**2), _cosines(one["inside"], classes**2))
        for one in row["likeness"]
    )
    found = tuple(_found(one, classes) for one in row["found"])
    return SearchTable(
        network, found, likeness, tuple(row["unreached"]), str(row["victim"]), int(row["seed"]), str(row["version"])
    )


def _found(one: dict[str, Any], classes: int) -> Found:
    if one["scope"] not in get_args(Scope) or not {one["source"], one["target"]} <= {None, *range(classes)}:
        raise ValueError(f"no search of {classes} classes: {one['scope']} from {one['source']} to {one['target']}")
    ends = one["source"] is not None, one["target"] is not None
    if ends != ENDS[one["scope"]] or not isinstance(one["kind"], str):
        raise ValueError(f"a {one['scope']} search from {one['source']} to {one['target']} for a {one['kind']} trigger")
    if one["size"] is not None and not (math.isfinite(one["size"]) and one["size"] >= 0):
        raise ValueError(f"a trigger of size {one['size']}")
    if not all(one[name] is None or 0 <= one[name] <= 1 for name in ("off_subspace", "off_target")):
        raise ValueError("a share that is not from 0 to 1")
    sent = None if one["sent"] is None else _numbers(one["sent"], classes**2)
    return Found(**{**one, "sent": sent, "number": int(one["number"]), "stage": int(one["stage"])})


def _numbers(values: Sequence[Any], count: int) -> tuple[int, ...]:
    numbers = tuple(map(int, _as_many(values, count)))
    if min(numbers, default=0) < 0:
        raise ValueError("a count below 0")
    return numbers


def _reals(values: Sequence[Any], count: int) -> tuple[float, ...]:
    return tuple(map(float, _as_many(values, count)))


def _cosines(values: Sequence[Any], count: int) -> tuple[float, ...]:
    numbers = _reals(values, count)
    if any(abs(number) > 1 + ROUNDED for number in numbers):
        raise ValueError("a cosine that is not from -1 to 1")
    return numbers


def _as_many(values: Sequence[Any], count: int) -> Sequence[Any]:
    if len(values) != count:
        raise ValueError(f"expected {count} values, got {len(values)}")
    return values
