"""Inversions in shares: each is independent of the others, can be kept, and is found again the same.

A share has a random stream of its own, named after what it searches, so its result depends neither on the order of the
shares nor on whether others came from a store.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from untrojan.classifier.classifier import Classifier
from untrojan.detection.family import TriggerFamily
from untrojan.detection.inversion import Budget, Inversion, OutOfTimeError, Problem, invert
from untrojan.progress import Progress

Key = TypeVar("Key")


RESERVE = 0.15
"""Share of the time allowed that is kept for the passes at the end, which say what the triggers do."""


class Store(Protocol):
    """Where finished shares are kept, by name."""

    def load(self, name: str) -> list[Inversion] | None: ...

    def save(self, name: str, found: Sequence[Inversion]) -> None: ...


class Nowhere:
    """Keeps nothing."""

    def load(self, name: str) -> None:
        """Never has anything."""

    def save(self, name: str, found: Sequence[Inversion]) -> None:
        """Ignored."""


class Searches:
    """Runs the inversions of a scan.

    deadline: seconds from now after which no more is begun and what is under way is given up; None is no limit. A share
    of it is kept back for what follows the searches (``use_reserve``). ``unreached`` says what was left out, in words.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        seed: int,
        progress: Progress,
        store: Store | None = None,
        deadline: float | None = None,
    ):
        self.classifier, self.seed, self.progress = classifier, seed, progress
        self.store: Store = store or Nowhere()
        self._limit = None if deadline is None else time.monotonic() + deadline
        self.ends = None if deadline is None else time.monotonic() + (1 - RESERVE) * deadline
        self.unreached: list[str] = []

    def run(
        self, what: str, family: TriggerFamily, problems: Mapping[Key, Problem], budget: Budget
    ) -> dict[Key, Inversion]:
        """The smallest trigger of each problem; those that the deadline cut off are missing."""
        found: dict[Key, Inversion] = {}
        if not problems:
            return found
        keys = list(problems)
        wide = max(1, budget.batch // budget.images)
        if not self.out_of_time():
            self.progress.start(f"{family.kind} triggers: {what}", len(keys))
        for number, first in enumerate(range(0, len(keys), wide)):
            share = keys[first : first + wide]
            name = f"{what}-{family.kind}-{number}".replace(" ", "-")
            kept_as = f"{name}-{_digest(share, problems)}"
            results = self.store.load(kept_as)
            if results is None or len(results) != len(share):
                try:
                    results = invert(
                        self.classifier,
                        family,
                        [problems[key] for key in share],
                        budget,
                        generator=self.generator(name),
                        progress=self.progress,
                        ends=self.ends,
                    )
                except OutOfTimeError:
                    self.unreached.append(f"{family.kind} triggers: {what} ({len(keys) - first} of {len(keys)})")
                    break
                self.store.save(kept_as, results)
            else:
                self.progress.advance(len(share))
            found.update(zip(share, results, strict=True))
        return found

    def out_of_time(self) -> bool:
        """Whether no more may be begun."""
        return self.ends is not None and time.monotonic() >= self.ends

    def use_reserve(self) -> None:
        """From now on the whole time allowed may be used."""
        self.ends = self._limit

    def generator(self, name: str) -> torch.Generator:
        """A CPU generator that depends on the seed and this name alone."""
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def choose(self, name: str, available: int, count: int) -> Tensor:
        """int64 [min(count, available)], drawn at random without repetition."""
        return torch.randperm(available, generator=self.generator(f"images of {name}"))[:count]


def _digest(keys: Sequence[Key], problems: Mapping[Key, Problem]) -> str:
    """What tells apart shares of the same name: where a scan had less time, it followed other triggers."""
    starts = [(key, problems[key].target, (s := problems[key].start) and s.sha256()) for key in keys]
    return hashlib.sha256(repr(starts).encode()).hexdigest()[:16]
