"""What the searches of a scan work on, and what they have found so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from untrojan.detection.inversion import Inversion
from untrojan.detection.ranking import Array
from untrojan.detection.table import Found, Scope

Pair = tuple[int, int]


@dataclass(frozen=True, order=True)
class Key:
    """Which search a trigger is from; see ``Found``."""

    scope: Scope
    kind: str
    source: int = -1
    target: int = -1
    number: int = 0
    stage: int = 0


@dataclass(frozen=True)
class Clean:
    """The clean images as the searches take them.

    images: float [N, C, H, W] in [0, 1]; labels, answers: int64 [N], their classes and what the classifier says.
    margins: float64 [K, K], log margins on clean images. Classes without images are no sources, but may be targets.
    """

    images: Tensor
    labels: Tensor
    answers: Tensor
    classes: int
    margins: Array

    def of(self, source: int) -> tuple[Tensor, Tensor]:
        """The images of a class, and what they are taken for."""
        own = self.labels == source
        return self.images[own], self.answers[own]

    def sources(self) -> list[int]:
        """The classes that there are images of."""
        return sorted(set(self.labels.tolist()))

    def pair(self, source: int, target: int) -> Tensor:
        """Images of a class that are not taken for the target anyway: these tell nothing of triggers into it."""
        images, answers = self.of(source)
        return images[answers != target]

    def others(self, target: int) -> Tensor:
        """The same of all other classes."""
        return self.images[(self.labels != target) & (self.answers != target)]

    def right(self) -> tuple[Tensor, Tensor]:
        """Images that are classified right, and their classes."""
        right = self.labels == self.answers
        return self.images[right], self.labels[right]


@dataclass
class Results:
    """What was found so far, in the order of the searches."""

    found: dict[Key, Inversion] = field(default_factory=dict)

    def add(self, key: Key, inversion: Inversion) -> None:
        """Note where a search ended."""
        self.found[key] = inversion

    def pairs(self, kind: str, stage: int) -> dict[Pair, Inversion]:
        """The pair-wise searches of a kind and stage."""
        of = {k: i for k, i in self.found.items() if (k.scope, k.kind, k.stage) == ("pair-wise", kind, stage)}
        return {(k.source, k.target): i for k, i in of.items()}

    def targets(self, kind: str, stage: int = 0) -> dict[int, Inversion]:
        """The target-wise searches of a kind and stage."""
        of = {k: i for k, i in self.found.items() if (k.scope, k.kind, k.stage) == ("target-wise", kind, stage)}
        return {k.target: i for k, i in of.items()}

    def scope(self, scope: Scope, kind: str) -> dict[Key, Inversion]:
        """All searches of a scope and kind."""
        return {k: i for k, i in self.found.items() if (k.scope, k.kind) == (scope, kind)}


def key_of(row: Found) -> Key:
    """The key of a row of the table."""
    source, target = (-1 if c is None else c for c in (row.source, row.target))
    return Key(row.scope, row.kind, source, target, row.number, row.stage)


def smaller(one: Inversion, other: Inversion) -> bool:
    """Whether a search ended at a smaller trigger than another, or alone found one."""
    return one.size is not None and (other.size is None or one.size < other.size)
