"""From clean images to anomalous class pairs: every pair, every kind of trigger, then each suspect target again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from untrojan.classifier.classifier import Classifier
from untrojan.detection.additive import AdditiveFamily
from untrojan.detection.anomaly import Thresholds, judge
from untrojan.detection.inversion import Budget, Problem, TriggerFamily, invert
from untrojan.detection.patch import PatchFamily
from untrojan.progress import Progress
from untrojan.records import PairScore
from untrojan.triggers import Trigger

FAMILIES: dict[str, type[TriggerFamily]] = {"patch": PatchFamily, "additive": AdditiveFamily}


@dataclass(frozen=True, kw_only=True)
class ScanSettings:
    """What a scan spends, and its thresholds. Chosen on victims other than those that any figure is reported on."""

    kinds: tuple[str, ...] = tuple(FAMILIES)
    pairs: Mapping[str, Budget] = field(
        default_factory=lambda: {
            "patch": Budget(steps=60, images=12),
            "additive": Budget(steps=50, images=12),
        }
    )
    pooled: Budget = field(default_factory=lambda: Budget(steps=120, images=64, level=0.95, patience=40))
    thresholds: Thresholds = field(default_factory=Thresholds)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return asdict(self)


@dataclass(frozen=True)
class Findings:
    """All pairs of all kinds, and one re-estimated trigger per detected (target, kind)."""

    pairs: tuple[PairScore, ...]
    triggers: Mapping[tuple[int, str], Trigger]


def scan_pairs(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    settings: ScanSettings,
    *,
    generator: torch.Generator,
    progress: Progress,
) -> Findings:
    """Invert and judge. images: float [N, C, H, W] in [0, 1] that the classifier gets right, on its device; labels:
    int64 [N]. Classes without images are no sources, but may be targets."""
    sources = {int(c): images[labels == c] for c in labels.unique().tolist()}
    classes = classifier.predict(images[:1]).shape[1]
    pairs = [(s, t) for t in range(classes) for s in sources if s != t]
    scored: list[PairScore] = []
    triggers: dict[tuple[int, str], Trigger] = {}
    for kind in settings.kinds:
        family, budget = FAMILIES[kind](), settings.pairs[kind]
        chosen = {s: pick(x, budget.images, generator) for s, x in sources.items()}
        progress.start(f"inverting {kind} triggers", len(pairs))
        problems = [Problem(chosen[s], t) for s, t in pairs]
        found = invert(classifier, family, problems, budget, generator=generator, progress=progress)
        sizes = [f.size for f in found]
        scores, detected = judge(pairs, sizes, settings.thresholds)
        scored += [
            PairScore(source=s, target=t, kind=kind, size=size, score=score, detected=hit)
            for (s, t), size, score, hit in zip(pairs, sizes, scores, detected, strict=True)
        ]
        suspects = sorted({t for (_, t), hit in zip(pairs, detected, strict=True) if hit})
        if suspects:
            progress.start(f"re-estimating {kind} triggers", len(suspects))
            pooled = [
                Problem(
                    torch.cat([sources[s] for (s, u), hit in zip(pairs, detected, strict=True) if hit and u == t]), t
                )
                for t in suspects
            ]
            again = invert(classifier, family, pooled, settings.pooled, generator=generator, progress=progress)
            for target, result in zip(suspects, again, strict=True):
                if result.trigger is not None:
                    triggers[target, kind] = result.trigger
    return Findings(tuple(scored), triggers)


def pick(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` random images, or all where there are fewer."""
    return images[torch.randperm(len(images), generator=generator)[:count].to(images.device)]


def targets_of(pairs: Sequence[PairScore]) -> tuple[int, ...]:
    """The detected target classes, ascending."""
    return tuple(sorted({p.target for p in pairs if p.detected}))
