"""A set of triggers that stand in for the attacker's: one smallest trigger is not enough.

The smallest trigger that flips the class is a good statistic and a bad stand-in: a correction fitted to it undoes a
shift far smaller than the real one, or one of several directions. Restarts from random starts, at several strengths,
cover what the victim obeys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from untrojan.classifier.classifier import Classifier
from untrojan.detection.inversion import Budget, Problem, invert
from untrojan.detection.scanner import FAMILIES
from untrojan.errors import InconclusiveError
from untrojan.progress import Progress
from untrojan.triggers import Trigger


@dataclass(frozen=True, kw_only=True)
class SurrogateSettings:
    """What the set of one kind is made of, and how long each search is.

    restarts: smallest triggers from different starts; allowances: for each, the most convincing trigger of so many
    times the smallest size, since an attacker has no reason to use the smallest.
    """

    restarts: int = 4
    allowances: tuple[float, ...] = (1.5, 2.0, 3.0, 4.0)
    budget: Budget = field(default_factory=lambda: Budget(steps=80, images=32, level=0.95, patience=1000))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return asdict(self)


def surrogates_for(
    classifier: Classifier,
    kinds: Sequence[str],
    images: Tensor,
    target: int,
    settings: SurrogateSettings,
    *,
    generator: torch.Generator,
    progress: Progress,
) -> list[Trigger]:
    """Triggers of each kind into ``target``, each from its own random start.

    images: float [N, C, H, W] in [0, 1], clean, of all source classes. Raises InconclusiveError if none succeeds.
    """
    surrogates: list[Trigger] = []
    for kind in kinds:
        family = FAMILIES[kind]()
        progress.start(f"{kind} stand-ins for the trigger into {target}", settings.restarts + len(settings.allowances))
        problems = [Problem(images, target)] * settings.restarts
        found = invert(classifier, family, problems, settings.budget, generator=generator, progress=progress)
        sizes = [f.size for f in found if f.size is not None]
        if sizes:
            problems = [Problem(images, target, allowance=a * min(sizes)) for a in settings.allowances]
            found += invert(classifier, family, problems, settings.budget, generator=generator, progress=progress)
        surrogates += [f.trigger for f in found if f.trigger is not None]
    if not surrogates:
        raise InconclusiveError(
            f"no trigger into class {target} works on all its source classes at once; scan again with more images"
        )
    return surrogates
