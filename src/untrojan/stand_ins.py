"""What a target's correction is made from: the kinds of trigger to invert anew, and the stand-ins themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from untrojan.classifier import Classifier
from untrojan.correction.base import Task
from untrojan.detection.plan import ScanSettings
from untrojan.detection.surrogates import Surrogates, SurrogateSettings, classes_moved, most_sent, surrogates_for
from untrojan.errors import DataError, InconclusiveError
from untrojan.progress import Progress
from untrojan.records import Cost, ScanReport
from untrojan.triggers import Trigger


def kinds_for(report: ScanReport, target: int) -> list[str]:
    """The kinds of trigger to invert stand-ins of: the one that the target was detected by, and all others in which
    the triggers into it are anomalous.

    The scan ascribes a target to one kind. An attacker's trigger may be none of them, such as a strong perturbation of
    few pixels, which is anomalous both as a patch and as a perturbation, and stand-ins of one kind leave a part of it.
    """
    detected = {p.kind for p in report.pairs if p.detected and p.target == target}
    return sorted(detected | _anomalous(report, target))


def _anomalous(report: ScanReport, target: int | None) -> set[str]:
    """The kinds in which the likeliest triggers into a class, or to whatever other, are anomalous."""
    about = [e for e in report.evidence if e.target == target and (target is not None or e.scope == "untargeted")]
    alpha = report.settings.get("alpha", ScanSettings().alpha)
    return {kind for e in about if e.p_value < alpha for kind in e.kinds}


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
    sources, among = report.sources(target), _of_sources(report, target, labels)
    few = has_few_sources(report, target, labels, settings)
    surrogates = surrogates_for(
        classifier,
        kinds_for(report, target),
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
        answers = tuple(sorted({*sources, *moved, *_untried(report, labels)}))
    task = Task(target, images[among], images[labels == target], surrogates.shown)
    return Prepared(task, surrogates, answers, generator.get_state())


def prepare_together(
    classifier: Classifier,
    report: ScanReport,
    images: Tensor,
    labels: Tensor,
    settings: SurrogateSettings,
    seeds: Mapping[int, int],
    progress: Progress,
) -> dict[int, Prepared]:
    """Stand-ins that targets of few sources have in common, by target; none where no trigger serves two of them.

    An all-to-all attack has one trigger, which sends each class to its own target. Searched on all of them at once it
    is pinned down by as many times the images as on the sources of one target, and by what every class obeys. Stand-ins
    are of the kinds of ``kinds_for``, and of those of which an untargeted trigger is anomalous. images, labels: as for
    ``prepare_target``; seeds: of the searches for a target alone, of which the corrections go on.
    """
    few = [t for t in report.targets if has_few_sources(report, t, labels, settings)]
    if len(few) < 2:
        return {}
    shown = {t: images[_of_sources(report, t, labels)] for t in few}
    together = torch.cat(list(shown.values()))
    aims = torch.cat([torch.full((len(x),), t, device=images.device) for t, x in shown.items()])
    kinds = {kind for t in few for kind in kinds_for(report, t)}
    kinds |= _anomalous(report, None)
    generator = torch.Generator().manual_seed(min(seeds.values()))
    try:
        surrogates = surrogates_for(
            classifier,
            sorted(kinds),
            together,
            aims,
            settings.for_few_sources(),
            starts=_farthest_reaching(classifier, report, few, together, aims),
            generator=generator,
            progress=progress,
        )
    except InconclusiveError:
        return {}
    served = [t for t, x in shown.items() if most_sent(classifier, surrogates.smallest, x, t) >= settings.shared_level]
    if len(served) < 2:
        return {}
    made = {}
    for t in served:
        moved = classes_moved(classifier, surrogates.smallest, images, labels, t, settings)
        task = Task(t, shown[t], images[labels == t], surrogates.shown)
        answers = tuple(sorted({*report.sources(t), *moved, *_untried(report, labels)}))
        made[t] = Prepared(task, surrogates, answers, torch.Generator().manual_seed(seeds[t]).get_state())
    return made


def has_few_sources(report: ScanReport, target: int, labels: Tensor, settings: SurrogateSettings) -> bool:
    """Whether it can be no all-to-one attack: so few of the classes that there are images of are detected sources."""
    others = {*labels.unique().tolist()} - {target}
    return len(report.sources(target)) <= settings.few_sources * len(others)


def _untried(report: ScanReport, labels: Tensor) -> set[int]:
    """Classes without images: nothing is known of what a trigger does to theirs."""
    return {*range(report.victim.classes)} - {*labels.unique().tolist()}


def _of_sources(report: ScanReport, target: int, labels: Tensor) -> Tensor:
    """bool [N], which images are of a target's sources."""
    sources = report.sources(target)
    among = torch.isin(labels, torch.tensor(sources, device=labels.device))
    if not bool(among.any()):
        raise DataError(f"no clean image of the source classes {list(sources)} of target {target}")
    return among


def _farthest_reaching(
    classifier: Classifier, report: ScanReport, targets: Sequence[int], images: Tensor, aims: Tensor
) -> dict[str, Trigger]:
    """By kind, which of the scan's triggers sends most images to the classes that they are to become."""
    best: dict[str, tuple[float, Trigger]] = {}
    for (target, kind), trigger in report.triggers.items():
        if target in targets:
            reached = float((classifier.predict(trigger.stamp(images)).argmax(1) == aims).float().mean())
            if kind not in best or reached > best[kind][0]:
                best[kind] = reached, trigger
    return {kind: trigger for kind, (_, trigger) in best.items()}
