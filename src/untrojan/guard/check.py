"""How a guard does on stand-ins for the trigger that its correction never saw."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from untrojan.guard.guard import Guard
from untrojan.intervals import wilson
from untrojan.records import Rate, TargetCheck
from untrojan.triggers import Trigger

IMAGES = 256


@torch.no_grad()
def check_target(
    guard: Guard,
    target: int,
    images: Tensor,
    labels: Tensor,
    *,
    sources: Sequence[int],
    surrogates: Sequence[Trigger],
    held_out: Sequence[Trigger],
    generator: torch.Generator,
) -> TargetCheck:
    """Stamp images of the source classes with each held-out trigger, and see what the guard makes of them.

    images: float [N, C, H, W] in [0, 1]; labels: int64 [N]; at most ``IMAGES`` of the source classes are drawn. These
    are the images that the correction was fitted to, and the held-out triggers come from the same kind of search as
    the others: the rates can show that a guard is bad, not prove that it is good.
    """
    device = images.device
    among = torch.isin(labels, torch.tensor(list(sources), device=device)).nonzero().flatten()
    among = among[torch.randperm(len(among), generator=generator)[:IMAGES].to(device)]
    alone, guarded, truth = [], [], []
    for trigger in held_out:
        decision = guard(trigger.stamp(images[among]))
        alone.append(decision.suspect_labels == target)
        guarded.append(decision.labels)
        truth.append(labels[among])
    own = torch.cat([guard(batch).triggered for batch in images[labels == target].split(IMAGES)])
    check = TargetCheck(
        surrogates=tuple((s.kind, s.size) for s in surrogates),
        held_out=tuple((s.kind, s.size) for s in held_out),
        fpr=_rate(own),
    )
    if not held_out:
        return check
    guarded_labels = torch.cat(guarded)
    rates = {
        "asr_before": _rate(torch.cat(alone)),
        "asr": _rate(guarded_labels == target),
        "sia": _rate(guarded_labels == torch.cat(truth)),
    }
    return check.model_copy(update=rates)


def _rate(hits: Tensor) -> Rate | None:
    return wilson(int(hits.sum()), len(hits))
