"""scan → repair → guard: the few lines that everything else calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar, overload

import torch
from torch import Tensor

from untrojan.classifier import Classifier
from untrojan.classifier.cost import CostMeter
from untrojan.classifier.sites import require_sites
from untrojan.classifier.state import as_found
from untrojan.correction import CORRECTIONS, TUNINGS
from untrojan.correction.base import Task
from untrojan.correction.tuning import Schedule, Tuning
from untrojan.data.images import image_hashes
from untrojan.detection.pairs import FEWEST
from untrojan.detection.scanner import Findings, ScanSettings, scan_pairs, targets_of
from untrojan.detection.search import Searches, Store
from untrojan.detection.surrogates import Surrogates, SurrogateSettings, classes_moved, surrogates_for
from untrojan.errors import DataError, GuardMismatchError, InconclusiveError, ShapeError, UsageError
from untrojan.guard.check import check_target
from untrojan.guard.files import AnyGuard, allowed
from untrojan.guard.guard import MARGIN_SHARE, Guard, usual_margin
from untrojan.guard.replacement import Replacement
from untrojan.identity import victim_info
from untrojan.keywords import checked
from untrojan.progress import Progress, Silent
from untrojan.records import Cost, Evidence, GuardCard, ScanReport
from untrojan.storage import all_finite
from untrojan.version import version

Verdict = Literal["backdoor", "clean", "inconclusive"]
Method = TypeVar("Method")


def scan(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    seed: int = 0,
    settings: ScanSettings | None = None,
    progress: Progress | None = None,
    store: Store | None = None,
    budget: float | None = None,
) -> ScanReport:
    """Is there a backdoor in this classifier, from which classes to which?

    images: clean, uint8 or float in [0, 1], [N, C, H, W], a few hundred; labels: their true classes, int64 [N].
    store: keeps finished shares of the work, so that a scan that was interrupted goes on from there with the same
    result; budget: seconds after which the search ends, whatever it has reached; then a victim in which nothing was
    found is inconclusive. The classifier, its modes and the global random state are as found afterwards.
    Raises DataError, ShapeError.
    """
    settings, progress = settings or ScanSettings(), progress or Silent()
    with as_found(classifier), CostMeter(classifier) as meter:
        images, labels = _checked(classifier, images, labels)
        doubt, known, answers = _doubts(classifier, images, labels)
        victim = victim_info(classifier, images)
        found = None
        if doubt is None:
            searches = Searches(classifier, seed=seed, progress=progress, store=store, deadline=budget)
            found = scan_pairs(searches, images[known], labels[known], answers[known], settings, classes=victim.classes)
    verdict, reason = ("inconclusive", str(doubt)) if found is None else _verdict(found, settings)
    report = ScanReport(
        verdict=verdict,
        reason=reason,
        p_value=None if found is None else found.p_value,
        targets=() if found is None else targets_of(found.pairs),
        pairs=() if found is None else found.pairs,
        evidence=() if found is None else found.evidence,
        unreached=() if found is None else found.unreached,
        cost=meter.cost(),
        victim=victim,
        images=len(images),
        seed=seed,
        settings=settings.as_dict(),
        version=version(),
    )
    return report if found is None else report.with_triggers(found.triggers)


@overload
def repair(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    report: ScanReport,
    *,
    seed: int = 0,
    settings: SurrogateSettings | None = None,
    method: Literal["bna"] = "bna",
    options: dict[str, Any] | None = None,
    margin_share: float = MARGIN_SHARE,
    progress: Progress | None = None,
) -> Guard: ...


@overload
def repair(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    report: ScanReport,
    *,
    seed: int = 0,
    settings: SurrogateSettings | None = None,
    method: str,
    options: dict[str, Any] | None = None,
    margin_share: float = MARGIN_SHARE,
    progress: Progress | None = None,
) -> AnyGuard: ...


def repair(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    report: ScanReport,
    *,
    seed: int = 0,
    settings: SurrogateSettings | None = None,
    method: str = "bna",
    options: dict[str, Any] | None = None,
    margin_share: float = MARGIN_SHARE,
    progress: Progress | None = None,
) -> AnyGuard:
    """Make a guard for a classifier in which ``scan`` found a backdoor.

    images, labels: as for ``scan``, the same ones or others. ``options`` are keyword arguments of the method. A tuning
    method, which BNA is compared with, gives a ``Replacement``; see ``tune``. settings, margin_share: of BNA; see
    ``SurrogateSettings`` and ``Guard``, 0 for the paper's inference rule.
    Raises InconclusiveError for an inconclusive report, UsageError for a clean one, GuardMismatchError for a report on
    another classifier, UnsupportedError for a network that has nothing to correct.
    """
    settings, progress = settings or SurrogateSettings(), progress or Silent()
    _require_backdoor(report)
    if method in TUNINGS:
        return tune(
            classifier, images, labels, method=method, options=options, report=report, seed=seed, progress=progress
        )
    _require_scan_of(classifier, report)
    correction = made_from(CORRECTIONS, method, options)
    rows: list[dict[str, Tensor]] = []
    prepared: dict[int, _Prepared] = {}
    own: dict[int, Tensor] = {}
    with as_found(classifier), CostMeter(classifier) as meter:
        images, labels = _checked(classifier, images, labels)
        require_sites(classifier, images)  # whether there is any, before the search for surrogates
        logits = classifier.predict(images)
        for target in report.targets:
            generator = torch.Generator().manual_seed(seed + 1_000_003 * target)
            own[target] = logits[labels == target]
            made = _prepare(classifier, report, target, images, labels, settings, generator, progress)
            rows.append(correction.fit(classifier, made.task, generator=generator, progress=progress))
            prepared[target] = made
    answers = {target: made.answers for target, made in prepared.items() if made.answers is not None}
    theta = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    among_classes = allowed(answers, report.targets, report.victim.classes) if answers else None
    limits = among_classes if among_classes is not None else [None] * len(report.targets)
    usual = [usual_margin(own[t], t, limit) for t, limit in zip(report.targets, limits, strict=True)]
    guard = Guard(
        classifier,
        report.targets,
        theta,
        answers=among_classes,
        margin_share=margin_share,
        usual_margins=usual,
    )
    with CostMeter(guard.victim) as first, CostMeter(guard.corrected) as second:
        checks = {
            target: check_target(
                guard,
                target,
                images,
                labels,
                sources=report.sources(target),
                surrogates=made.surrogates.shown,
                held_out=made.surrogates.held_out,
                generator=torch.Generator().manual_seed(seed),
            )
            for target, made in prepared.items()
        }
    guard.card = GuardCard(
        victim=report.victim,
        method=method,
        targets=report.targets,
        sources={t: report.sources(t) for t in report.targets},
        answers=answers or None,
        margin_share=margin_share,
        usual_margins=dict(zip(report.targets, usual, strict=True)),
        settings={"surrogates": settings.as_dict(), "correction": vars(correction)},
        images_sha256=image_hashes((images * 255).round().to(torch.uint8)),
        checks=checks,
        cost=Cost(
            seconds=meter.seconds + first.seconds,
            images_forward=sum(m.images_forward for m in (meter, first, second)),
            images_forward_backward=meter.images_forward_backward,
        ),
        seed=seed,
        version=version(),
    )
    return guard


def tune(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    method: str,
    options: dict[str, Any] | None = None,
    report: ScanReport | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Replacement:
    """Repair a copy of a classifier by a tuning method; most of these need no scan, whatever it says.

    images, labels: as for ``scan``; ``options`` are keyword arguments of the method; report: for the methods that
    unlearn its triggers. The classifier itself stays as it is. Raises UsageError for an unknown method or option, or a
    report without the triggers that the method needs, GuardMismatchError for a report on another classifier.
    """
    tuning = made_from(TUNINGS, method, options)
    if report is not None:
        _require_scan_of(classifier, report)
    targets = () if report is None else report.targets
    triggers = {} if report is None else {target: trigger for (target, _), trigger in report.triggers.items()}
    with as_found(classifier), CostMeter(classifier) as meter:
        images, labels = _checked(classifier, images, labels)
        victim = victim_info(classifier, images)
        made = tuning.fit(
            classifier,
            images,
            labels,
            triggers=triggers,
            generator=torch.Generator().manual_seed(seed),
            progress=progress or Silent(),
        )
    guard = Replacement(classifier, targets, made.weights, made.theta)
    guard.card = GuardCard(
        victim=victim,
        method=method,
        form="replacement",
        targets=targets,
        sources={} if report is None else {target: report.sources(target) for target in targets},
        settings={"tuning": settings_of(tuning)},
        images_sha256=image_hashes((images * 255).round().to(torch.uint8)),
        cost=meter.cost(),
        seed=seed,
        version=version(),
    )
    return guard


def made_from(table: Mapping[str, type[Method]], name: str, options: Mapping[str, Any] | None) -> Method:
    """The method of that name with these keyword arguments, converted to the types that it asks for.

    Raises UsageError for a name or an argument that is not known, and for a value of another type.
    """
    if name not in table:
        raise UsageError(f"method '{name}' is not one of {', '.join([*CORRECTIONS, *TUNINGS])}")
    return table[name](**checked(table[name].__init__, options or {}, f"method {name}"))


def settings_of(tuning: Tuning) -> dict[str, Any]:
    """The options of a tuning method as plain values."""
    return {name: asdict(v) if isinstance(v, Schedule) else v for name, v in vars(tuning).items()}


def _require_scan_of(classifier: Classifier, report: ScanReport) -> None:
    if classifier.sha256() != report.victim.sha256:
        raise GuardMismatchError(
            f"the scan is of the victim {report.victim.sha256[:12]}…, and this is {classifier.sha256()[:12]}…; "
            "scan this classifier, with the same --mean and --std"
        )


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
class _Prepared:
    """What a target's correction is made from; ``answers`` where its images can only be of some classes."""

    task: Task
    surrogates: Surrogates
    answers: tuple[int, ...] | None


def _prepare(
    classifier: Classifier,
    report: ScanReport,
    target: int,
    images: Tensor,
    labels: Tensor,
    settings: SurrogateSettings,
    generator: torch.Generator,
    progress: Progress,
) -> _Prepared:
    """The stand-ins for a target's trigger, on the clean images of its sources."""
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
    return _Prepared(Task(target, images[among], images[labels == target], surrogates.shown), surrogates, answers)


def _checked(classifier: Classifier, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Float images in [0, 1] and int64 labels on the classifier's device."""
    images = classifier.as_float(images)
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise DataError(f"expected one int64 label for each of the {len(images)} images")
    if len(images) == 0:
        raise DataError("there are no images; give a few hundred clean ones of the classes that the classifier knows")
    if not bool(torch.isfinite(images).all()) or float(images.min()) < 0 or float(images.max()) > 1:
        raise ShapeError("float images must be finite and lie in [0, 1]; give uint8 images for values in 0..255")
    if len(labels.unique()) < 2:
        raise DataError("all images are of one class; give clean images of at least two, better of every class")
    return images, labels.to(images.device)


def _doubts(classifier: Classifier, images: Tensor, labels: Tensor) -> tuple[str | None, Tensor, Tensor]:
    """Why no verdict can be given, or None; which images to invert on, bool [N]; what the classifier says of all."""
    none = torch.zeros(len(images), dtype=torch.bool)
    if not all_finite(dict(classifier.module.state_dict())):
        return (
            "the classifier's weights hold NaN or infinite values, so nothing that it answers can be trusted",
            none,
            labels,
        )
    logits = classifier.predict(images)
    if not bool(torch.isfinite(logits).all()):
        return "the classifier answers clean images with NaN or infinite values", none, labels
    classes = logits.shape[1]
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise DataError(f"labels must lie in 0..{classes - 1}, got {int(labels.min())}..{int(labels.max())}")
    if classes < 3:
        return f"with {classes} classes there are too few class pairs to tell which one is anomalous", none, labels
    answers = logits.argmax(1)
    right = answers == labels
    accuracy = float(right.float().mean())
    if accuracy < 1 / classes + 0.1:
        return (
            (
                f"the classifier gets only {accuracy:.0%} of the clean images right; check the order of the classes, "
                "--mean and --std, and --input"
            ),
            none,
            answers,
        )
    counts = torch.stack([(right & (labels == c)).sum() for c in range(classes)])
    # A class of which nearly nothing is right is still a possible source: then its images serve as they are.
    return None, right | (counts < FEWEST)[labels], answers


def _require_backdoor(report: ScanReport) -> None:
    if report.verdict == "inconclusive":
        raise InconclusiveError(
            f"the scan was inconclusive ({report.reason}); repair needs a scan that found a backdoor"
        )
    if report.verdict == "clean" or not report.targets:
        raise UsageError("the scan found no backdoor, so there is nothing to repair")


def _verdict(found: Findings, settings: ScanSettings) -> tuple[Verdict, str]:
    """The verdict and its reason in words."""
    targets = targets_of(found.pairs)
    clearest = (
        f"the clearest of {len(found.evidence)} findings is {_words(found.evidence[0])}" if found.evidence else ""
    )
    if found.p_value < settings.alpha and targets:
        detected = sum(p.detected for p in found.pairs)
        into = f"target class{'es' if len(targets) > 1 else ''} {', '.join(map(str, targets))}"
        return "backdoor", f"{detected} class pairs into {into} have an anomalously small trigger; {clearest}"
    if found.p_value < settings.alpha:
        return "inconclusive", f"{clearest}, but the class pairs that it moves could not be told"
    if found.unreached:
        return "inconclusive", f"nothing was found in the time allowed, which did not suffice for {found.unreached[0]}"
    if found.unsearchable:
        return "inconclusive", f"for most classes no {' and no '.join(found.unsearchable)} trigger was found at all"
    return "clean", f"no trigger is smaller than honest classifiers have them; {clearest}" if clearest else "no trigger"


def _words(evidence: Evidence) -> str:
    start = "all classes" if evidence.source is None else f"class {evidence.source}"
    end = "any other" if evidence.target is None else str(evidence.target)
    if evidence.test == "margin":
        return (
            f"the margin that class {evidence.target} can reach, {evidence.ratio:.1f} times as large as is usual here"
        )
    times = f"{evidence.ratio:.1f} times as small as is usual here"
    trigger = "trigger" if evidence.together_with is None else "triggers"
    return f"the {evidence.kinds} {trigger} from {start} to {end}, {times}"
