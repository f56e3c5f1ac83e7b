"""A victim, with and without its guard, on test images: the only place where the true trigger may be known."""

from __future__ import annotations

import torch
from torch import Tensor

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.cost import CostMeter
from untrojan.classifier.state import as_found
from untrojan.errors import DataError
from untrojan.evaluation.intervals import wilson
from untrojan.evaluation.metrics import agreement, share
from untrojan.guard.guard import Decision, Guard
from untrojan.identity import victim_info
from untrojan.progress import Progress, Silent
from untrojan.records import After, Before, Counts, Evaluation
from untrojan.setting import Setting
from untrojan.triggers import Trigger
from untrojan.version import version


def evaluate(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    guard: Guard | None = None,
    trigger: Trigger | None = None,
    setting: Setting | None = None,
    left_out: int = 0,
    seed: int = 0,
    batch_size: int = 500,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure ACC and, with a trigger and its setting, ASR, SIA, TPR and FPR, each with a 95 % interval.

    images: uint8 or float [N, C, H, W]; labels: int64 [N]. Triggered images are those whose true class the attacker
    moves (for all-to-one: all but the target's). FPR is over clean images of the attacker's target classes, of the
    guard's where no setting is given. Without a guard, ``after`` is None. Raises DataError on empty or mismatched
    input.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise DataError(f"evaluation needs images and as many labels, got {len(images)} and {len(labels)}")
    progress = progress or Silent()
    with as_found(classifier), CostMeter(classifier) as meter:
        progress.start("measuring", len(images) * (1 if trigger is None else 2))
        clean = _decide(classifier, guard, images, None, batch_size, progress)
        moved = triggered = None
        if trigger is not None and setting is not None:
            classes = classifier.predict(images[:1]).shape[1]
            goals = setting.target_of(labels, classes)
            moved = goals >= 0
            if not bool(moved.any()):
                raise DataError(f"none of the test images is of a class that setting '{setting}' moves")
            triggered = _decide(classifier, guard, images[moved], trigger, batch_size, progress)
    suspects = clean.suspect_labels
    before, after = Before(acc=wilson(*agreement(suspects, labels))), None
    counts = Counts(clean=len(images), left_out=left_out)
    if guard is not None:
        among = torch.isin(labels, guard.targets.cpu())
        after = After(
            acc=wilson(*agreement(clean.labels, labels)),
            fpr=wilson(*share(clean.triggered, among)),
            fpr_all=wilson(*share(clean.triggered)),
        )
        counts = counts.model_copy(update={"target_clean": int(among.sum())})
    if setting is not None and moved is not None and triggered is not None:
        goal, truth = goals[moved], labels[moved]
        successful = triggered.suspect_labels == goal
        before = Before(
            acc=before.acc,
            asr=wilson(*agreement(triggered.suspect_labels, goal)),
            asr_floor=wilson(*agreement(suspects[moved], goal)),
            sia=wilson(*agreement(triggered.suspect_labels, truth)),
            sia_ceiling=wilson(*agreement(suspects[moved], truth)),
        )
        targets = torch.tensor(sorted({t for _, t in setting.pairs(classes)}))
        among = torch.isin(labels, targets)
        counts = counts.model_copy(
            update={
                "triggered": len(truth),
                "successful": int(successful.sum()),
                "target_clean": int(among.sum()),
            }
        )
        if guard is not None and after is not None:
            after = After(
                acc=after.acc,
                asr=wilson(*agreement(triggered.labels, goal)),
                sia=wilson(*agreement(triggered.labels, truth)),
                tpr=wilson(*share(triggered.triggered)),
                tpr_of_successful=wilson(*share(triggered.triggered, successful)),
                fpr=wilson(*share(clean.triggered, among)),
                fpr_all=after.fpr_all,
            )
    return Evaluation(
        before=before,
        after=after,
        counts=counts,
        setting=None if setting is None else str(setting),
        victim=victim_info(classifier, images),
        cost=meter.cost(),
        seed=seed,
        version=version(),
    )


@torch.no_grad()
def _decide(
    classifier: Classifier,
    guard: Guard | None,
    images: Tensor,
    trigger: Trigger | None,
    batch_size: int,
    progress: Progress,
) -> Decision:
    """The guard's decisions, or the victim's own as a guard that never flags; on the CPU."""
    parts = []
    for batch in images.split(batch_size):
        x = classifier.as_float(batch)
        x = x if trigger is None else trigger.stamp(x)
        if guard is not None:
            parts.append(guard(x))
        else:
            labels = classifier(x).argmax(1)
            quiet = torch.zeros_like(labels, dtype=torch.bool)
            parts.append(Decision(labels, quiet, labels, quiet.float()))
        progress.advance(len(batch))
    return Decision(*(torch.cat(part).cpu() for part in zip(*parts, strict=True)))
