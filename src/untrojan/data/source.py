"""What a kind of data source is, and how class names of data and classifier are brought together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from untrojan.data.decoding import Picture, shown
from untrojan.errors import DataError


class Source(ABC):
    """Labelled images that are not decoded yet: labels come first, so that only the images drawn are ever read.

    A subclass is constructed from what the user wrote and, if known, the classifier's class names; it raises
    UntrojanError if that cannot be read.
    """

    form: ClassVar[str]
    """How a user writes it, for messages."""

    labels: Tensor
    """int64 [N]."""
    class_names: tuple[str, ...] | None
    """By label; None if not known."""
    by_order: bool = False
    """Whether the labels are but the order of the class names."""
    where: str
    """What it is, for people."""
    size: tuple[int, int] | None = None
    """(H, W) to resize to unless the user says otherwise; None keeps what the images have."""

    @abstractmethod
    def __init__(self, spec: str, class_names: Sequence[str] | None): ...

    @classmethod
    @abstractmethod
    def takes(cls, spec: str) -> bool:
        """Whether ``spec`` is written in this source's form."""

    @abstractmethod
    def pictures(self, index: Tensor) -> Iterator[tuple[str, Picture]]:
        """The images at ``index`` (int64 [M], ascending), in that order, each with a name for messages."""


def numbers_of(names: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """The classifier's number of each of these class names, None unless each is one of its names ``wanted``; where they
    are not written alike, without regard to case."""
    for written in (str, str.casefold):
        own, place = [written(name) for name in names], {written(name): n for n, name in enumerate(wanted)}
        if len(place) == len(wanted) and len(set(own)) == len(own) and all(name in place for name in own):
            return [place[name] for name in own]
    return None


def align_labels(
    labels: Tensor, own: tuple[str, ...] | None, wanted: Sequence[str] | None, where: str
) -> tuple[Tensor, tuple[str, ...] | None]:
    """Labels numbered as the classifier numbers its classes, and the class names to use.

    own: the data's class names by label; wanted: the classifier's. If every own name is one of the classifier's,
    labels go by name; if the two use different words, they stay as they are. If names that both use stand for
    different numbers and the rest does not match, there is no telling: DataError.
    """
    if own is None or wanted is None:
        return labels, own if wanted is None else tuple(wanted)
    place = {name: number for number, name in enumerate(wanted)}
    unambiguous = len(place) == len(wanted) and len(set(own)) == len(own)
    known_as = numbers_of(own, wanted)
    if known_as is not None:
        table = torch.tensor(known_as, dtype=torch.int64)
        known = (labels >= 0) & (labels < len(own))
        return torch.where(known, table[labels.clamp(0, len(own) - 1)], labels), tuple(wanted)
    for number, name in enumerate(own):
        if unambiguous and place.get(name, number) != number:
            raise DataError(
                f"{where}: class '{shown(name)}' is number {number} here and {place[name]} in the classifier, and not "
                "all class names agree; give both the same class names"
            )
    return labels, tuple(wanted)
