"""``NAME?split=train&classes=10`` or ``&classes=3,5,8``: which part of a set that is known by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from untrojan.data.decoding import shown
from untrojan.data.source import align_labels
from untrojan.errors import UsageError

SPLITS = ("train", "test")


LONGEST = 9
"""Digits of a class number, or of how many."""


def part_of(spec: str) -> tuple[str | None, Sequence[int] | None]:
    """The split and the classes ``spec`` asks for, None where it says nothing; raises UsageError."""
    name, mark, query = spec.partition("?")
    asked = dict(part.partition("=")[::2] for part in query.split("&")) if mark else {}
    split, classes = asked.get("split"), asked.get("classes")
    numbers = [] if classes is None else classes.split(",")
    if (
        not asked.keys() <= {"split", "classes"}
        or split not in (None, *SPLITS)
        or not all(number.isdecimal() and len(number) <= LONGEST for number in numbers)
    ):
        raise UsageError(
            f"data '{shown(spec)}': expected {name}, {name}?split=train or {name}?split=test, and &classes=N, the "
            "first N, or &classes=A,B,..."
        )
    if classes is None:
        return split, None
    chosen = [int(number) for number in numbers] if len(numbers) > 1 else range(int(classes))
    if len(chosen) < 2 or (isinstance(chosen, list) and len(set(chosen)) < len(chosen)):
        raise UsageError(f"data '{shown(spec)}': &classes= keeps at least 2 classes, each once, got {shown(classes)}")
    return split, chosen


def of_classes(
    labels: Tensor, own: tuple[str, ...] | None, chosen: Sequence[int], wanted: Sequence[str] | None, where: str
) -> tuple[Tensor, Tensor, tuple[str, ...] | None]:
    """Which images are of the chosen classes (int64 [M]), their labels, numbered anew, and the class names to use.

    labels: int64 [N]; own, wanted, where: as for ``align_labels``. Raises UsageError if there are no such classes.
    """
    there = int(labels.max()) + 1 if labels.numel() else 0
    if max(chosen) >= there:
        raise UsageError(f"{where}: &classes= asks for class {max(chosen)}, and there are {there}, from 0")
    number = torch.full((there,), -1)
    number[list(chosen)] = torch.arange(len(chosen))
    index = (number[labels] >= 0).nonzero().flatten()
    names = None if own is None else tuple(own[c] for c in chosen)
    return index, *align_labels(number[labels[index]], names, wanted, where)


def told(chosen: Sequence[int]) -> str:
    """The classes for people."""
    return f"first {len(chosen)} classes" if isinstance(chosen, range) else f"classes {', '.join(map(str, chosen))}"
