"""What a page that shows everything is made from."""

from __future__ import annotations

from untrojan.classifier import Classifier
from untrojan.data import ImageSet
from untrojan.guard import AnyGuard, Guard
from untrojan.records import Evaluation, ScanReport
from untrojan.report import NeuronHistogram, ReportContent
from untrojan.report_pictures import neuron_histogram, trigger_pictures
from untrojan.setting import Setting
from untrojan.triggers import Trigger


def full_content(
    classifier: Classifier,
    data: ImageSet,
    *,
    evaluation: Evaluation | None,
    scan: ScanReport | None,
    guard: AnyGuard | None,
    trigger: Trigger | None,
    setting: Setting | None,
    pictures: bool,
    command: str,
    title: str = "untrojan evaluation",
) -> ReportContent:
    """Records, and with ``pictures`` the scan's triggers on images of ``data`` and one neuron's histogram."""
    shown = trigger_pictures(classifier, scan, data.images, data.labels) if pictures and scan is not None else ()
    neuron = _neuron(classifier, data, scan, guard, trigger, setting) if pictures else None
    return ReportContent(
        scan=scan,
        guard=None if guard is None else guard.require_card(),
        evaluation=evaluation,
        pictures=shown,
        neuron=neuron,
        command=command,
        title=title,
    )


def _neuron(
    classifier: Classifier,
    data: ImageSet,
    scan: ScanReport | None,
    guard: AnyGuard | None,
    trigger: Trigger | None,
    setting: Setting | None,
) -> NeuronHistogram | None:
    """For the attacker's trigger if it is known, else for the first that the scan found."""
    if trigger is not None and setting is not None:
        classes = classifier.predict(data.images[:1]).shape[1]
        pairs = setting.pairs(classes)
        target = next((t for _, t in pairs if guard is not None and t in guard.targets.tolist()), pairs[0][1])
        sources = [source for source, goal in pairs if goal == target]
    elif scan is not None and scan.triggers:
        (target, _), trigger = next(iter(scan.triggers.items()))
        sources = list(scan.sources(target))
    else:
        return None
    chosen = sum((data.labels == source for source in sources), data.labels < 0)
    if not bool(chosen.any()):
        return None
    covered = guard if isinstance(guard, Guard) and target in guard.targets.tolist() else None
    return neuron_histogram(classifier, data.images[chosen], trigger, guard=covered, target=target)
