"""What a target's correction is made from: the kinds of trigger to invert anew, and the stand-ins themselves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from untrojan.classifier import Classifier
from untrojan.correction.base import Task
from untrojan.detection.surrogates import Surrogates, SurrogateSettings, classes_moved, surrogates_for
from untrojan.errors import DataError
from untrojan.progress import Progress
from untrojan.records import Cost, ScanReport


def kinds_for(report: ScanReport, target: int, odd: float) -> list[str]:
    """The kinds of trigger to invert stand-ins of: the one that the target was detected by, and any other of which the
    smallest trigger from all classes into it is unusual as well, with a p-value below ``odd``.

    The scan ascribes a target to one kind. An attacker's trigger may be none of them, such as a strong perturbation of
    few pixels, which is odd both as a patch and as a perturbation, and stand-ins of one kind leave a part of it.
    """
    detected = {p.kind for p in report.pairs if p.detected and p.target == target}
    also = {
        e.kind
        for e in report.evidence
        if e.test == "target" and e.target == target and e.together_with is None and e.p_value < odd
    }
    return sorted(detected | also)


@dataclass(frozen=True)
class Prepared:
    """What a target's correction is made from; ``answers`` where its images can only be of some classes; ``state``: of
    the random generator, where the correction goes on with it."""

    task: Task
    surrogates: Surrogates
    answers: tuple[int, ...] | None
    state: Tensor

    def generator(self) -> torch.Generator:
        """A generator that goes on where the search for stand-ins ended."""
        made = torch.Generator()
        made.set_state(self.state)
        return made


@dataclass(frozen=True)
class StandIns:
    """What a guard's corrections are made from, by target; of which victim (its SHA-256), how, and at what cost."""

    of: dict[int, Prepared]
    victim: str
    settings: SurrogateSettings
    seed: int
    cost: Cost


def prepare_target(
    classifier: Classifier,
    report: ScanReport,
    target: int,
    images: Tensor,
    labels: Tensor,
    settings: SurrogateSettings,
    generator: torch.Generator,
    progress: Progress,
) -> Prepared:
    """The stand-ins for a target's trigger, on the clean images of its sources.

    images: float [N, C, H, W] in [0, 1]; labels: int64 [N]. Raises InconclusiveError if none works.
    """
    sources = report.sources(target)
    among = torch.isin(labels, torch.tensor(sources, device=labels.device))
    if not bool(among.any()):
        raise DataError(f"no clean image of the source classes {list(sources)} of target {target}")
    few = len(sources) <= settings.few_sources * (report.victim.classes - 1)
    surrogates = surrogates_for(
        classifier,
        kinds_for(report, target, settings.odd_kind),
        images[among],
        target,
        settings.for_few_sources() if few else settings,
        starts={kind: trigger for (into, kind), trigger in report.triggers.items() if few and into == target},
        generator=generator,
        progress=progress,
    )
    answers = None
    if few:
        moved = classes_moved(classifier, surrogates.smallest, images, labels, target, settings)
        answers = tuple(sorted({*sources, *moved}))
    task = Task(target, images[among], images[labels == target], surrogates.shown)
    return Prepared(task, surrogates, answers, generator.get_state())
