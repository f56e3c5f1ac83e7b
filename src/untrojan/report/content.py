"""What a report is made from: the records, and the pictures that are not in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from untrojan.errors import DataError, GuardMismatchError, ShapeError
from untrojan.records import Evaluation, GuardCard, ScanReport, VictimInfo
from untrojan.triggers import Trigger


@dataclass(frozen=True, eq=False)
class TriggerPicture:
    """A trigger and a few images to show it on.

    clean: uint8 [n, C, H, W]; labels and both predictions: n class numbers each. Raises ShapeError if they disagree.
    """

    target: int
    kind: str
    size: float
    trigger: Trigger
    clean: Tensor
    labels: tuple[int, ...]
    predictions_clean: tuple[int, ...]
    predictions_stamped: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.clean.ndim != 4 or self.clean.dtype != torch.uint8:
            raise ShapeError(
                f"a trigger picture takes clean images as uint8 [n,C,H,W], "
                f"got {self.clean.dtype} {list(self.clean.shape)}"
            )
        lengths = [len(self.clean), len(self.labels), len(self.predictions_clean), len(self.predictions_stamped)]
        if len(set(lengths)) != 1:
            raise ShapeError(
                "a trigger picture takes one label and two predictions for each clean image, "
                f"got {lengths[0]} images, {lengths[1]} labels, {lengths[2]} and {lengths[3]} predictions"
            )


@dataclass(frozen=True)
class NeuronHistogram:
    """How often one neuron takes which value, as densities over M bins.

    edges: M + 1 ascending values; clean, triggered and corrected (None: no guard): M densities >= 0, in units of one
    over the activation's unit. Raises DataError if they disagree.
    """

    layer: str
    channel: int
    edges: Sequence[float]
    clean: Sequence[float]
    triggered: Sequence[float]
    corrected: Sequence[float] | None = None

    def __post_init__(self) -> None:
        where = f"histogram of {self.layer}, channel {self.channel}"
        widths = [b - a for a, b in zip(self.edges, self.edges[1:], strict=False)]
        if not widths or not all(math.isfinite(w) and w > 0 for w in widths):
            raise DataError(f"{where}: expected two or more finite, ascending edges, got {len(self.edges)} others")
        for name, densities in self.curves():
            if len(densities) != len(widths):
                raise DataError(f"{where}: expected {len(widths)} densities for '{name}', got {len(densities)}")
            if not all(math.isfinite(d) and d >= 0 for d in densities):
                raise DataError(f"{where}: the densities of '{name}' must be finite and not negative")

    def curves(self) -> tuple[tuple[str, Sequence[float]], ...]:
        """The (name, densities) that are there, in the order in which they are drawn."""
        both = (("clean", self.clean), ("triggered", self.triggered))
        return both if self.corrected is None else (*both, ("corrected", self.corrected))

    def distance(self, densities: Sequence[float]) -> float:
        """Total variation distance of ``densities`` from the clean ones, in [0, 1]."""
        widths = (b - a for a, b in zip(self.edges, self.edges[1:], strict=False))
        return sum(w * abs(p - q) for w, p, q in zip(widths, self.clean, densities, strict=True)) / 2


@dataclass(frozen=True, eq=False)
class ReportContent:
    """Everything that one report shows; what is None or empty is left out.

    Raises GuardMismatchError if the records are about different victims, DataError if they name classes that the
    victim does not have.
    """

    scan: ScanReport | None = None
    guard: GuardCard | None = None
    evaluation: Evaluation | None = None
    pictures: tuple[TriggerPicture, ...] = ()
    neuron: NeuronHistogram | None = None
    command: str | None = None
    title: str = "untrojan report"

    def __post_init__(self) -> None:
        hashes = {record.victim.sha256 for record in (self.scan, self.guard, self.evaluation) if record is not None}
        if len(hashes) > 1:
            raise GuardMismatchError(
                f"a report is about one victim, these records are about {len(hashes)} "
                f"({', '.join(sorted(h[:12] for h in hashes))}); take scan, guard and evaluation of the same one"
            )
        victim = self.victim
        if victim is None:
            return
        for number in self._named_classes():
            if not 0 <= number < victim.classes:
                raise DataError(f"the records name class {number}, but the victim has {victim.classes} classes")

    @property
    def victim(self) -> VictimInfo | None:
        """The classifier that the report is about; None if there is no record."""
        records = (self.scan, self.evaluation, self.guard)
        return next((record.victim for record in records if record is not None), None)

    def _named_classes(self) -> set[int]:
        named = {n for p in self.pictures for n in (p.target, *p.labels, *p.predictions_clean, *p.predictions_stamped)}
        if self.scan is not None:
            named |= {n for p in self.scan.pairs for n in (p.source, p.target)} | set(self.scan.targets)
        if self.guard is not None:
            named |= set(self.guard.targets) | set(self.guard.sources)
            named |= {n for sources in self.guard.sources.values() for n in sources}
        return named
