"""Search tables made by hand: what a clean network's searches may find, and what an attack changes in it."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from untrojan.detection.reference import Reference
from untrojan.detection.table import Found, Likeness, Network, SearchTable

KINDS = ("patch", "additive", "blend", "warp")
UNIT = {"patch": 20.0, "additive": 1.0, "blend": 0.15, "warp": 0.4}
EACH = 20
"""Images of a class that triggers are tried on."""


WEIGHTS = {
    "target-wise": {"joint lead": 1.8, "joint under": 1.8, "joint outside": 0.3, "intercept": -6.0},
    "pair-wise": {"joint lead": 2.4, "joint spares": 0.6, "joint outside": 0.3, "intercept": -4.0},
    "untargeted": {"joint under": 1.6, "mapping": 4.0, "intercept": -4.0},
}


@functools.cache
def reference_by_hand() -> Reference:
    """Of ninety clean tables, of three, five and ten classes."""
    several = [table(classes, seed) for classes in (3, 5, 10) for seed in range(30)]
    return Reference(weights=WEIGHTS, limits={}, models=()).extended(several, "made by hand")


def network(classes: int = 10, accuracy: float = 0.9, seed: int = 0, **changes: object) -> Network:
    """A classifier of 28 x 28 grey images that is right on a share of fifty images of each class."""
    lot = np.random.default_rng(seed)
    right = round(50 * accuracy)
    confusion = np.zeros((classes, classes), dtype=int)
    for c in range(classes):
        confusion[c, c], confusion[c, (c + 1) % classes] = right, 50 - right
    gaps = lot.uniform(3, 9, (classes, classes))
    np.fill_diagonal(gaps, np.nan)
    made = Network(
        classes=classes,
        images=(50,) * classes,
        confusion=tuple(map(int, confusion.ravel())),
        input_shape=(1, 28, 28),
        parameters=10_000,
        layers=(("Conv2d", 2), ("Linear", 2), ("ReLU", 3)),
        logit_gaps=tuple(map(float, gaps.ravel())),
        reach=tuple(map(float, lot.uniform(20, 25, classes))),
        distance=9.0,
        contrast=0.3,
        sureness=0.95,
    )
    return dataclasses.replace(made, **changes)


def table(
    classes: int = 10,
    seed: int = 0,
    *,
    target: int | None = None,
    pair: tuple[int, int] | None = None,
    mapping: bool = False,
    shrink: float = 0.2,
    **changes: object,
) -> SearchTable:
    """A clean table, or that of an attack: its triggers are smaller by the factor ``shrink``, and do what they do."""
    lot = np.random.default_rng(seed)
    rows: list[Found] = []
    for kind in KINDS:
        for t in range(classes):
            size = UNIT[kind] * math.exp(0.2 * lot.standard_normal()) * (shrink if t == target else 1.0)
            share = 0.9 if t == target else 0.5 + 0.1 * lot.random()
            rows.append(_found("target-wise", kind, size, None, t, share, sent_into(classes, range(classes), t)))
        for number in range(2):
            small = mapping or target is not None
            size = UNIT[kind] * (1.1 + 0.2 * number) * (shrink if small else 1.0)
            if mapping:
                sent = sent_next(classes)
            else:
                sent = sent_into(classes, range(classes), 0 if target is None else target)
            rows.append(_found("untargeted", kind, size, None, None, 0.6, sent, number))
    if classes > 2:
        rows += _pairs(classes, lot, target, pair, shrink)
    alike = tuple(Likeness(kind, _identity(classes), _identity(classes)) for kind in KINDS)
    return SearchTable(network(classes, seed=seed, **changes), tuple(rows), alike, victim=f"{seed:064d}", version="0")


def _pairs(
    classes: int, lot: np.random.Generator, target: int | None, pair: tuple[int, int] | None, shrink: float
) -> list[Found]:
    rows, refined = [], [(s, (s + 1) % classes) for s in range(min(classes, 8))]
    refined += [pair] if pair is not None and pair not in refined else []
    for kind in KINDS[:2]:
        for s in range(classes):
            for t in range(classes):
                if s != t:
                    own = (s, t) == pair or t == target
                    size = 0.6 * UNIT[kind] * math.exp(0.25 * lot.standard_normal()) * (shrink if own else 1.0)
                    rows.append(_found("pair-wise", kind, size, s, t, None, None))
        for s, t in refined:
            own = (s, t) == pair
            size = 0.5 * UNIT[kind] * math.exp(0.15 * lot.standard_normal()) * (shrink if own or t == target else 1.0)
            lost = 0.005 if own else 0.1 + 0.1 * lot.random()
            sent = sent_into(classes, [s] if own else range(classes), t)
            share = 0.9 if own else 0.5 + 0.1 * lot.random()
            rows.append(
                dataclasses.replace(_found("pair-wise", kind, size, s, t, share, sent), stage=1, off_target=lost)
            )
    return rows


def _found(scope, kind, size, source, target, share, sent, number=0) -> Found:
    return Found(scope, kind, float(size), 0.9, 50, source, target, number, 0, share, None, sent)


def sent_into(classes: int, sources, target: int) -> tuple[int, ...]:
    """Most images of the sources go to the target, the others stay."""
    counts = EACH * np.eye(classes, dtype=int)
    for s in sources:
        if s != target:
            counts[s, s], counts[s, target] = EACH // 5, EACH - EACH // 5
    return tuple(map(int, counts.ravel()))


def sent_next(classes: int) -> tuple[int, ...]:
    """Each class goes to the next one."""
    counts = EACH // 5 * np.eye(classes, dtype=int)
    for s in range(classes):
        counts[s, (s + 1) % classes] += EACH - EACH // 5
    return tuple(map(int, counts.ravel()))


def _identity(classes: int) -> tuple[float, ...]:
    return tuple(map(float, np.eye(classes).ravel()))
