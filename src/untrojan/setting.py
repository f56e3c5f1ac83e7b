"""The attacker's goal: which classes a trigger moves, and where to."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from untrojan.errors import DataError, UsageError


@dataclass(frozen=True)
class Setting:
    """Label mapping of an attack.

    Written ``a2o:T`` (every class but T goes to T), ``a2a`` (class c goes to (c + 1) mod K, Gu et al. 2019) or
    ``s2t:S>T`` (class S alone goes to T).

    >>> Setting.parse("a2o:9").pairs(10)[:2]
    ((0, 9), (1, 9))
    >>> str(Setting.parse("s2t:3>9"))
    's2t:3>9'
    """

    kind: str
    source: int | None = None
    target: int | None = None

    @classmethod
    def parse(cls, text: str) -> Setting:
        """Read the notation above; raises UsageError on anything else."""
        text = text.strip()
        if text == "a2a":
            return cls("a2a")
        if found := re.fullmatch(r"a2o:(\d{1,6})", text):
            return cls("a2o", target=int(found[1]))
        if found := re.fullmatch(r"s2t:(\d{1,6})>(\d{1,6})", text):
            if int(found[1]) == int(found[2]):
                raise UsageError(f"setting '{text}': source and target are the same class")
            return cls("s2t", source=int(found[1]), target=int(found[2]))
        raise UsageError(f"setting {text[:80]!r}: expected a2o:T, a2a or s2t:S>T with class numbers, such as a2o:9")

    def __str__(self) -> str:
        if self.kind == "a2a":
            return "a2a"
        return f"a2o:{self.target}" if self.kind == "a2o" else f"s2t:{self.source}>{self.target}"

    def pairs(self, classes: int) -> tuple[tuple[int, int], ...]:
        """Every (source, target) pair among ``classes`` classes; raises UsageError if a class does not exist."""
        for name, value in (("source", self.source), ("target", self.target)):
            if value is not None and value >= classes:
                raise UsageError(f"setting '{self}': {name} class {value} does not exist, there are {classes} classes")
        if self.kind == "a2a":
            return tuple((c, (c + 1) % classes) for c in range(classes))
        if self.kind == "a2o":
            return tuple((c, self.target) for c in range(classes) if c != self.target)  # type: ignore[misc]
        return ((self.source, self.target),)  # type: ignore[return-value]

    def target_of(self, labels: Tensor, classes: int) -> Tensor:
        """The attacker's label for each true label: int64 [N]; -1 where the trigger is not meant to act.

        labels: int64 [N]; raises DataError if one is not in 0..classes-1.
        """
        table = torch.full((classes,), -1, dtype=torch.int64)
        for source, target in self.pairs(classes):
            table[source] = target
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise DataError(f"labels must lie in 0..{classes - 1}, got {int(labels.min())}..{int(labels.max())}")
        return table.to(labels.device)[labels]
