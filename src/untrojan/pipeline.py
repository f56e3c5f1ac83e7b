"""scan → repair → guard: the few lines that everything else calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Literal, TypeVar, overload

import torch
from torch import Tensor

from untrojan.classifier import Classifier
from untrojan.classifier.corrected import require_own_layers, twin
from untrojan.classifier.cost import CostMeter
from untrojan.classifier.folding import folded
from untrojan.classifier.sites import require_sites
from untrojan.classifier.state import as_found
from untrojan.correction import CORRECTIONS, TUNINGS
from untrojan.correction.tuning import Schedule, Tuning
from untrojan.data.images import image_hashes, require_label_each
from untrojan.detection.describe import describe
from untrojan.detection.evidence import evidence_of, pair_scores
from untrojan.detection.judge import judge
from untrojan.detection.plan import ScanSettings
from untrojan.detection.reestimate import reestimate
from untrojan.detection.reference import Reference, built_in
from untrojan.detection.search import search
from untrojan.detection.shares import Searches, Store
from untrojan.detection.surrogates import SurrogateSettings
from untrojan.errors import DataError, GuardMismatchError, InconclusiveError, UsageError
from untrojan.guard.check import check_target
from untrojan.guard.files import AnyGuard, allowed, tensors_of
from untrojan.guard.guard import MARGIN_SHARE, Guard, usual_margin
from untrojan.guard.replacement import Replacement
from untrojan.identity import victim_info
from untrojan.keywords import checked
from untrojan.progress import Progress, Silent
from untrojan.records import Cost, GuardCard, ScanReport
from untrojan.stand_ins import Prepared, StandIns, prepare_target, prepare_together
from untrojan.storage import tensors_sha256
from untrojan.verdict import doubts, no_better_than_guessing
from untrojan.version import version

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
    reference: Reference | None = None,
) -> ScanReport:
    """Is there a backdoor in this classifier, from which classes to which?

    images: clean, uint8 or float in [0, 1], [N, C, H, W], a few hundred; labels: their true classes, int64 [N].
    store: keeps finished shares of the work, so that a scan that was interrupted goes on from there with the same
    result. budget: seconds after which the search ends, whatever it has reached; then a victim in which nothing was
    found is inconclusive. reference: the clean models that it is compared with; None for those of this package. The
    classifier, its modes and the global random state are as found afterwards.
    Raises DataError, ShapeError.
    """
    settings, progress = settings or ScanSettings(), progress or Silent()
    compared = reference or built_in()
    with as_found(classifier), CostMeter(classifier) as meter:
        images, labels = _checked(classifier, images, labels)
        with as_found(classifier):  # its hash is that of buffers which no pass has changed
            _require_searchable(classifier, images)
            doubt, known, answers = doubts(classifier, images, labels)
        victim = victim_info(classifier, images)
        found = None
        if doubt is None:
            network = describe(classifier, images, labels, victim.classes, seed)
            searches = Searches(classifier, seed=seed, progress=progress, store=store, deadline=budget)
            with folded(classifier, images):
                found = search(searches, network, images[known], labels[known], answers[known], settings)
                table = replace(found.table, victim=victim.sha256, version=version())
                ruling = judge(table, compared, settings.alpha)
                right = known & (answers == labels)
                triggers = reestimate(
                    searches, ruling.named, table, found.triggers, images[right], labels[right], settings.pooled
                )
    about: dict[str, Any] = {
        "cost": meter.cost(),
        "victim": victim,
        "images": len(images),
        "seed": seed,
        "settings": settings.suited_to(victim.classes).as_dict(),
        "version": version(),
    }
    if found is None:
        return ScanReport(verdict="inconclusive", reason=str(doubt), targets=(), pairs=(), **about)
    members = [member for one in ruling.named for member in one.members]
    return ScanReport(
        verdict=ruling.verdict,
        reason=ruling.reason,
        p_value=ruling.p_value,
        score=ruling.score,
        accuracy=table.network.accuracy,
        targets=tuple(sorted({member.target for member in members})),
        pairs=pair_scores(table, members),
        evidence=evidence_of(ruling, table, compared),
        unreached=tuple(searches.unreached),
        **about,
    ).with_triggers(triggers, table)


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
    stand_ins: StandIns | None = None,
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
    stand_ins: StandIns | None = None,
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
    stand_ins: StandIns | None = None,
    progress: Progress | None = None,
) -> AnyGuard:
    """Make a guard for a classifier in which ``scan`` found a backdoor.

    images, labels: as for ``scan``, the same ones or others. ``options`` are keyword arguments of the method. A tuning
    method, which BNA is compared with, gives a ``Replacement``; see ``tune``. settings, margin_share: of BNA; see
    ``SurrogateSettings`` and ``Guard``, 0 for the paper's inference rule. stand_ins: as ``prepare`` made them of the
    same arguments, for another correction without another search; the guard and its cost are as if it had searched.
    Raises InconclusiveError for an inconclusive report, UsageError for a clean one, GuardMismatchError for a report on
    another classifier, UnsupportedError for a network that has nothing to correct.
    """
    settings, progress = settings or SurrogateSettings(), progress or Silent()
    _require_backdoor(report)
    if not 0 <= margin_share < 1:
        raise UsageError(f"margin_share is from 0 to less than 1, got {margin_share:g}")
    if method in TUNINGS:
        return tune(
            classifier, images, labels, method=method, options=options, report=report, seed=seed, progress=progress
        )
    _require_scan_of(classifier, report)
    correction = made_from(CORRECTIONS, method, options)
    made = stand_ins or prepare(classifier, images, labels, report, seed=seed, settings=settings, progress=progress)
    if (made.victim, made.settings, made.seed) != (report.victim.sha256, settings, seed) or {*made.of} != {
        *report.targets
    }:
        raise UsageError("the stand-ins are of another scan, seed or other settings than these; prepare them anew")
    with as_found(classifier), CostMeter(classifier) as meter:
        images, labels = _checked(classifier, images, labels)
        logits = classifier.predict(images)
        own = {target: logits[labels == target] for target in report.targets}
        rows = [
            correction.fit(classifier, one.task, generator=one.generator(), progress=progress)
            for one in made.of.values()
        ]
    answers = {target: one.answers for target, one in made.of.items() if one.answers is not None}
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
    with as_found(classifier), CostMeter(guard.victim) as first, CostMeter(guard.corrected) as second:
        checks = {
            target: check_target(
                guard,
                target,
                images,
                labels,
                sources=report.sources(target),
                surrogates=one.surrogates.shown,
                held_out=one.surrogates.held_out,
                generator=torch.Generator().manual_seed(seed),
            )
            for target, one in made.of.items()
        }
    guard.card = GuardCard(
        victim=report.victim,
        method=method,
        tensors_sha256=tensors_sha256(tensors_of(guard)),
        targets=report.targets,
        sources={t: report.sources(t) for t in report.targets},
        answers=answers or None,
        margin_share=margin_share,
        usual_margins=dict(zip(report.targets, usual, strict=True)),
        settings={"surrogates": settings.as_dict(), "correction": vars(correction)},
        images_sha256=image_hashes((images * 255).round().to(torch.uint8)),
        checks=checks,
        cost=Cost(
            seconds=made.cost.seconds + meter.seconds + first.seconds,
            images_forward=made.cost.images_forward + sum(m.images_forward for m in (meter, first, second)),
            images_forward_backward=made.cost.images_forward_backward + meter.images_forward_backward,
        ),
        seed=seed,
        version=version(),
    )
    return guard


def prepare(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    report: ScanReport,
    *,
    seed: int = 0,
    settings: SurrogateSettings | None = None,
    progress: Progress | None = None,
) -> StandIns:
    """The first half of ``repair``, and about half of its time: stand-ins for the trigger of every target found.

    To be given to one ``repair`` after another, of the same arguments but with other options. Raises as ``repair``.
    """
    _require_backdoor(report)
    _require_scan_of(classifier, report)
    settings, progress = settings or SurrogateSettings(), progress or Silent()
    made: dict[int, Prepared] = {}
    with as_found(classifier), CostMeter(classifier) as meter:
        images, labels = _checked(classifier, images, labels)
        _require_searchable(classifier, images)
        # Whether a guard can be made at all, before the search.
        require_sites(classifier, images)
        require_own_layers(classifier, twin(classifier), images[:1])
        _require_right(classifier, images, labels)
        seeds = {target: seed + 1_000_003 * target for target in report.targets}
        shared = prepare_together(classifier, report, images, labels, settings, seeds, progress)
        for target in report.targets:
            made[target] = shared.get(target) or prepare_target(
                classifier,
                report,
                target,
                images,
                labels,
                settings,
                torch.Generator().manual_seed(seeds[target]),
                progress,
            )
    return StandIns(made, report.victim.sha256, settings, seed, meter.cost())


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
        require_own_layers(classifier, twin(classifier), images[:1])
        torch.manual_seed(seed)  # dropout in the copy that is trained
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
        tensors_sha256=tensors_sha256(tensors_of(guard)),
        targets=targets,
        sources={} if report is None else {target: report.sources(target) for target in targets},
        settings={"tuning": settings_of(tuning), "learning_rate_divided_by": made.slowed},
        images_sha256=image_hashes((images * 255).round().to(torch.uint8)),
        cost=meter.cost(),
        seed=seed,
        version=version(),
    )
    return guard


def check_method(name: str, options: Mapping[str, Any] | None) -> None:
    """Raise UsageError for a method of ``repair`` that there is not, or an option that it does not take."""
    table: Mapping[str, type[Any]] = TUNINGS if name in TUNINGS else CORRECTIONS
    made_from(table, name, options)


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


def _checked(classifier: Classifier, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Float images in [0, 1] and int64 labels on the classifier's device."""
    if torch.is_inference_mode_enabled():
        raise UsageError("triggers are searched by gradients: call this outside of torch.inference_mode()")
    images = classifier.as_float(images)
    if images.is_inference():
        images = images.clone()
    require_label_each(images, labels)
    if len(images) == 0:
        raise DataError("there are no images; give a few hundred clean ones of the classes that the classifier knows")
    classifier.require_range(images)
    if len(labels.unique()) < 2:
        raise DataError("all images are of one class; give clean images of at least two, better of every class")
    return images, labels.to(images.device)


def _require_right(classifier: Classifier, images: Tensor, labels: Tensor) -> None:
    """Raise DataError if the labels seem to be another classifier's: a repair would be made after them."""
    logits = classifier.predict(images)
    wrong = no_better_than_guessing(logits.argmax(1) == labels, logits.shape[1])
    if wrong is not None:
        raise DataError(wrong)


def _require_searchable(classifier: Classifier, images: Tensor) -> None:
    """Raise UnsupportedError if triggers cannot be searched in this classifier, which is in evaluation mode."""
    classifier.require_gradient(images)
    classifier.require_steady(images)


def _require_backdoor(report: ScanReport) -> None:
    if report.verdict == "inconclusive":
        raise InconclusiveError(
            f"the scan was inconclusive ({report.reason}); repair needs a scan that found a backdoor"
        )
    if report.verdict == "clean" or not report.targets:
        raise UsageError("the scan found no backdoor, so there is nothing to repair")
