"""A set of triggers that stand in for the attacker's: one smallest trigger is not enough.

The smallest trigger that flips the class is a good statistic and a bad stand-in: a correction fitted to it undoes a
shift far smaller than the real one, or one of several directions. Restarts from random starts, at several strengths,
cover what the victim obeys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from untrojan.classifier.classifier import Classifier
from untrojan.detection.inversion import Budget, Problem, invert
from untrojan.detection.plan import FAMILIES
from untrojan.errors import CheckpointError, InconclusiveError, UsageError
from untrojan.progress import Progress
from untrojan.triggers import Trigger


@dataclass(frozen=True, kw_only=True)
class SurrogateSettings:
    """What the set of one kind is made of, and how long each search is.

    restarts: smallest triggers from different starts; allowances: for each, the most convincing trigger of so many
    times the smallest size, since an attacker has no reason to use the smallest; copies: at most so many mirrored or
    shifted ones are added, of those that still move a share of ``copy_level`` of the images; held_out: allowances of
    triggers that no correction sees, for the check of the finished guard. A search that ends at more than ``growth``
    times the size that it should have reached has found something else, and counts for nothing; None keeps all.

    If no more than ``few_sources`` (a share) of the other classes are detected sources, the guard's answers are limited
    to these and to the classes of which the smallest triggers move a share of ``moved_level``, tried on
    ``moved_images`` of each, and the set is made as ``for_few_sources`` says. Of several such targets those are served
    by one set of which a smallest trigger sends a share of ``shared_level`` of their sources' images to each.
    """

    restarts: int = 4
    allowances: tuple[float, ...] = (1.5, 2.0, 3.0, 4.0)
    held_out: tuple[float, ...] = (1.75, 3.5)
    growth: float | None = None
    copies: int = 8
    copy_level: float = 0.8
    few_sources: float = 0.34
    few_level: float = 0.7
    moved_level: float = 0.3
    shared_level: float = 0.5
    moved_images: int = 32
    budget: Budget = field(default_factory=lambda: Budget(steps=80, images=32, level=0.95, patience=1000))

    def __post_init__(self) -> None:
        if self.restarts < 1 or self.copies < 0 or self.moved_images < 1:
            raise UsageError("stand-ins: restarts and moved_images are at least 1, copies at least 0")
        if not all(size > 0 for size in (*self.allowances, *self.held_out)):
            raise UsageError("stand-ins: allowances and held_out are larger than 0, in units of the smallest size")
        if self.growth is not None and not self.growth > 0:
            raise UsageError("stand-ins: growth is larger than 0")
        shares = (
            self.copy_level,
            self.few_sources,
            self.few_level,
            self.moved_level,
            self.shared_level,
        )
        if not all(0 <= share <= 1 for share in shares):
            raise UsageError("stand-ins: few_sources and the levels are from 0 to 1")

    @classmethod
    def paper(cls) -> SurrogateSettings:
        """The paper's recipe: the smallest trigger of each odd kind; two more are held out for the check alone."""
        return cls(restarts=1, allowances=(), copies=0, few_sources=0.0)

    def for_few_sources(self) -> SurrogateSettings:
        """The same for a target of few sources, as in all-to-all attacks.

        These often succeed on two thirds of the images alone. What moves nearly all of them is then another, larger
        trigger: one that no attacker put there.
        """
        return replace(self, growth=2.0, budget=replace(self.budget, level=min(self.budget.level, self.few_level)))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return asdict(self)


@dataclass(frozen=True)
class Surrogates:
    """``shown``: the triggers to correct for, at least one; ``smallest``: those of them that were made as small as
    possible; ``held_out``: those to check the result with."""

    shown: list[Trigger]
    smallest: list[Trigger]
    held_out: list[Trigger]


def surrogates_for(
    classifier: Classifier,
    kinds: Sequence[str],
    images: Tensor,
    target: int | Tensor,
    settings: SurrogateSettings,
    *,
    starts: Mapping[str, Trigger] | None = None,
    generator: torch.Generator,
    progress: Progress,
) -> Surrogates:
    """Triggers of each kind into ``target``, every other one from that of its kind in ``starts`` if there is one.

    images: float [N, C, H, W] in [0, 1], clean, of all source classes; target: one for all, or int64 [N], one for each.
    Raises InconclusiveError if none succeeds.
    """
    into = "all targets" if isinstance(target, Tensor) else str(target)
    shown: list[Trigger] = []
    smallest: list[Trigger] = []
    held_out: list[Trigger] = []
    for kind in kinds:
        if kind not in FAMILIES:
            raise CheckpointError(f"the scan names triggers of kind '{kind}', and known are {', '.join(FAMILIES)}")
        family = FAMILIES[kind]()
        allowances = (*settings.allowances, *settings.held_out)
        progress.start(f"{kind} stand-ins for the trigger into {into}", settings.restarts + len(allowances))
        known = (starts or {}).get(kind)
        first = [Problem(images, target, start=known if i % 2 == 0 else None) for i in range(settings.restarts)]
        found = invert(classifier, family, first, settings.budget, generator=generator, progress=progress)
        sizes = [f.size for f in found if f.size is not None]
        if not sizes:
            continue
        goals = [a * min(sizes) for a in allowances]
        later = [Problem(images, target, goal, start=known if i % 2 else None) for i, goal in enumerate(goals)]
        found += invert(classifier, family, later, settings.budget, generator=generator, progress=progress)
        goals = [min(sizes)] * settings.restarts + goals
        kept = [
            None if settings.growth and (f.size or 0.0) > settings.growth * goal else f.trigger
            for f, goal in zip(found, goals, strict=True)
        ]
        seen = settings.restarts + len(settings.allowances)
        triggers = [t for t in kept[:seen] if t is not None]
        shown += triggers + moved_copies(classifier, triggers, images, target, settings, generator)
        smallest += [t for t in kept[: settings.restarts] if t is not None]
        held_out += [t for t in kept[seen:] if t is not None]
    if not shown:
        raise InconclusiveError(
            f"no trigger into class {into} works on all its source classes at once; scan again with more images"
        )
    return Surrogates(shown, smallest, held_out)


def moved_copies(
    classifier: Classifier,
    triggers: Sequence[Trigger],
    images: Tensor,
    target: int | Tensor,
    settings: SurrogateSettings,
    generator: torch.Generator,
) -> list[Trigger]:
    """Mirrored and shifted triggers that the classifier obeys as well.

    A victim trained with crops and mirrored images obeys the trigger at other places too, and all searches may have
    ended at the same one. These copies cost forward passes alone.
    """
    index = torch.randperm(len(images), generator=generator)[:64].to(images.device)
    shown, aims = images[index], target[index] if isinstance(target, Tensor) else target
    shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    moves = [(mirror, dy, dx) for mirror in (False, True) for dy, dx in shifts if mirror or dy or dx]
    candidates = [(trigger, move) for trigger in triggers for move in moves]
    kept: list[Trigger] = []
    for index in torch.randperm(len(candidates), generator=generator)[: 6 * settings.copies].tolist():
        trigger, (mirror, dy, dx) = candidates[index]
        copy = FAMILIES[trigger.kind]().moved(trigger, mirror, dy, dx)
        reached = (classifier.predict(copy.stamp(shown)).argmax(1) == aims).float().mean()
        if float(reached) >= settings.copy_level:
            kept.append(copy)
        if len(kept) == settings.copies:
            break
    return kept


def classes_moved(
    classifier: Classifier,
    triggers: Sequence[Trigger],
    images: Tensor,
    labels: Tensor,
    target: int,
    settings: SurrogateSettings,
) -> tuple[int, ...]:
    """The classes of which some trigger sends a share of ``moved_level`` or more to ``target``, ascending.

    images: float [N, C, H, W] in [0, 1], clean; labels: int64 [N]. ``moved_images`` of each class are tried.
    """
    moved = []
    for number in labels.unique().tolist():
        shown = images[labels == number][: settings.moved_images]
        if number != target and most_sent(classifier, triggers, shown, target) >= settings.moved_level:
            moved.append(number)
    return tuple(moved)


def most_sent(classifier: Classifier, triggers: Sequence[Trigger], images: Tensor, target: int) -> float:
    """The largest share of images (float [N, C, H, W] in [0, 1]) that one of the triggers sends to a class."""
    sent = [(classifier.predict(t.stamp(images)).argmax(1) == target).float().mean() for t in triggers]
    return max(map(float, sent), default=0.0)
