"""``NAME?split=train&classes=10``: which part of a set that is known by name."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from untrojan.data.decoding import shown
from untrojan.data.source import align_labels
from untrojan.errors import UsageError

SPLITS = ("train", "test")


def part_of(spec: str) -> tuple[str | None, int | None]:
    """The split and how many classes ``spec`` asks for, None where it says nothing; raises UsageError."""
    name, mark, query = spec.partition("?")
    asked = dict(part.partition("=")[::2] for part in query.split("&")) if mark else {}
    split, classes = asked.get("split"), asked.get("classes")
    if (
        not asked.keys() <= {"split", "classes"}
        or split not in (None, *SPLITS)
        or not (classes is None or (classes.isdecimal() and len(classes) < 10))
    ):
        raise UsageError(
            f"data '{shown(spec)}': expected {name}, {name}?split=train or {name}?split=test, and &classes=N"
        )
    if classes is not None and int(classes) < 2:
        raise UsageError(f"data '{shown(spec)}': &classes=N keeps the first N classes, at least 2, got {classes}")
    return split, None if classes is None else int(classes)


def first_classes(
    labels: Tensor, own: tuple[str, ...] | None, classes: int, wanted: Sequence[str] | None, where: str
) -> tuple[Tensor, Tensor, tuple[str, ...] | None]:
    """Which images are of the first so many classes (int64 [M]), their labels, and the class names to use.

    labels: int64 [N]; own, wanted, where: as for ``align_labels``. Raises UsageError if there are fewer classes.
    """
    index = (labels < classes).nonzero().flatten()
    own_classes = int(labels.max()) + 1 if labels.numel() else 0
    if classes > own_classes:
        raise UsageError(f"{where}: &classes={classes} asks for more classes than there are, {own_classes}")
    return index, *align_labels(labels[index], None if own is None else own[:classes], wanted, where)
