"""A victim, with and without its guard, on test images: the only place where the true trigger may be known."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.cost import CostMeter
from untrojan.classifier.finite import finite_answers
from untrojan.classifier.state import as_found
from untrojan.data.images import require_label_each
from untrojan.errors import DataError, GuardMismatchError, UsageError
from untrojan.evaluation.metrics import agreement, share
from untrojan.guard import AnyGuard, Decision, Strip
from untrojan.identity import victim_info
from untrojan.intervals import wilson
from untrojan.progress import Progress, Silent
from untrojan.records import After, Before, Cost, Counts, Evaluation
from untrojan.setting import Setting
from untrojan.triggers import Trigger
from untrojan.version import version


def evaluate(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    guard: AnyGuard | Strip | None = None,
    trigger: Trigger | None = None,
    setting: Setting | None = None,
    left_out: int = 0,
    seed: int = 0,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure ACC and, with a trigger and its setting, ASR, SIA, TPR and FPR, each with a 95 % interval.

    images: uint8 or float [N, C, H, W]; labels: int64 [N]. Triggered images are those whose true class the attacker
    moves (for all-to-one: all but the target's). FPR is over clean images of the attacker's target classes, of the
    guard's where no setting is given. Without a guard, ``after`` is None; its TPR and FPR are, where the guard flags
    nothing. Raises DataError on empty or mismatched input and labels that are no classes, ShapeError for float images
    beyond [0, 1], UsageError for a trigger without a setting, GuardMismatchError for a guard of another victim,
    InconclusiveError for answers that are no numbers.
    """
    if len(images) == 0:
        raise DataError("evaluation needs images, and there are none")
    require_label_each(images, labels)
    classifier.require_range(images)
    if batch_size < 1:
        raise UsageError(f"batch_size is at least 1, got {batch_size}")
    if not isinstance(setting, Setting | None):
        raise UsageError(f"a setting is Setting.parse('a2o:9'), say; got {setting!r}")
    if trigger is not None and setting is None:
        raise UsageError("a trigger is measured together with its setting, such as Setting.parse('a2o:9')")
    progress, labels = progress or Silent(), labels.cpu()
    # A guard passes its images through its own view of the victim, which a counter on the classifier does not see.
    counted: list[nn.Module] = [classifier, *(() if guard is None else guard.networks)]
    with as_found(classifier), ExitStack() as stack:
        meters = [stack.enter_context(CostMeter(module)) for module in counted]
        stack.enter_context(finite_answers(counted))
        victim = victim_info(classifier, images)
        if guard is not None and guard.victim.sha256() != victim.sha256:
            raise GuardMismatchError("the guard was made for another victim than this; run repair for this one")
        if int(labels.min()) < 0 or int(labels.max()) >= victim.classes:
            raise DataError(f"labels must lie in 0..{victim.classes - 1}, got {int(labels.min())}..{int(labels.max())}")
        goals = None if setting is None else setting.target_of(labels, victim.classes)
        moved = None if trigger is None or goals is None else goals >= 0
        if moved is not None and not bool(moved.any()):
            raise DataError(f"none of the test images is of a class that setting '{setting}' moves")
        progress.start("measuring", len(images) + (0 if moved is None else int(moved.sum())))
        clean = _decide(classifier, guard, images, None, batch_size, progress)
        stamped = None
        if trigger is not None and moved is not None and goals is not None:
            decision = _decide(classifier, guard, images[moved], trigger, batch_size, progress)
            stamped = _Stamped(decision, goals[moved], labels[moved], clean.suspect_labels[moved])
    if setting is not None:
        targets = {target for _, target in setting.pairs(victim.classes)}
    else:
        targets = set() if guard is None else set(guard.targets.tolist())
    among = torch.isin(labels, torch.tensor(sorted(targets), dtype=torch.int64))
    return Evaluation(
        before=_before(clean, labels, stamped),
        after=None if guard is None else _after(clean, labels, among, stamped, flags=guard.flags),
        counts=Counts(
            clean=len(images),
            target_clean=int(among.sum()) if targets else None,
            left_out=left_out,
            triggered=None if stamped is None else len(stamped.truth),
            successful=None if stamped is None else int(stamped.successful.sum()),
        ),
        setting=None if setting is None else str(setting),
        victim=victim,
        cost=Cost(
            seconds=meters[0].seconds,
            images_forward=sum(meter.images_forward for meter in meters),
            images_forward_backward=sum(meter.images_forward_backward for meter in meters),
        ),
        seed=seed,
        version=version(),
    )


@dataclass(frozen=True, eq=False)
class _Stamped:
    """What became of the images that carry the trigger: ``goal``, where the attacker sends each; ``truth``, its true
    class; ``unstamped``, what the victim says of it without the trigger; int64 [N] each."""

    decision: Decision
    goal: Tensor
    truth: Tensor
    unstamped: Tensor

    @property
    def successful(self) -> Tensor:
        """bool [N], where the victim obeys."""
        return self.decision.suspect_labels == self.goal


def _before(clean: Decision, labels: Tensor, stamped: _Stamped | None) -> Before:
    """The victim without its guard."""
    acc = wilson(*agreement(clean.suspect_labels, labels))
    if stamped is None:
        return Before(acc=acc)
    return Before(
        acc=acc,
        asr=wilson(*share(stamped.successful)),
        asr_floor=wilson(*agreement(stamped.unstamped, stamped.goal)),
        sia=wilson(*agreement(stamped.decision.suspect_labels, stamped.truth)),
        sia_ceiling=wilson(*agreement(stamped.unstamped, stamped.truth)),
    )


def _after(clean: Decision, labels: Tensor, among: Tensor, stamped: _Stamped | None, *, flags: bool) -> After:
    """The victim with its guard. among: bool [N], the clean images of the target classes; flags: whether the guard
    flags images at all."""
    after = After(
        acc=wilson(*agreement(clean.labels, labels)),
        fpr=wilson(*share(clean.triggered, among)) if flags else None,
        fpr_all=wilson(*share(clean.triggered)) if flags else None,
    )
    if stamped is None:
        return after
    decision = stamped.decision
    rates = {
        "asr": wilson(*agreement(decision.labels, stamped.goal)),
        "sia": wilson(*agreement(decision.labels, stamped.truth)),
        "tpr": wilson(*share(decision.triggered)) if flags else None,
        "tpr_of_successful": wilson(*share(decision.triggered, stamped.successful)) if flags else None,
    }
    return after.model_copy(update=rates)


@torch.no_grad()
def _decide(
    classifier: Classifier,
    guard: AnyGuard | Strip | None,
    images: Tensor,
    trigger: Trigger | None,
    batch_size: int,
    progress: Progress,
) -> Decision:
    """The guard's decisions, or the victim's own as a guard that never flags; on the CPU."""
    parts = []
    for batch in images.split(batch_size):
        x = classifier.as_float(batch)
        x = classifier.arranged(x if trigger is None else trigger.stamp(x))
        if guard is not None:
            parts.append(guard(x))
        else:
            labels = classifier(x).argmax(1)
            quiet = torch.zeros_like(labels, dtype=torch.bool)
            parts.append(Decision(labels, quiet, labels, quiet.float()))
        progress.advance(len(batch))
    return Decision(*(torch.cat(part).cpu() for part in zip(*parts, strict=True)))
