"""Small records to render."""

from __future__ import annotations

from typing import Any

import torch

from untrojan.records import (
    After,
    Before,
    Cost,
    Counts,
    Evaluation,
    Evidence,
    GuardCard,
    PairScore,
    Rate,
    ScanReport,
    TargetCheck,
    VictimInfo,
)
from untrojan.report import NeuronHistogram, ReportContent, TriggerPicture
from untrojan.triggers import AdditiveTrigger, PatchTrigger

NAMES = ("airplane", "cat", "ship", "truck")
COST = Cost(seconds=94.0, images_forward=1234567, images_forward_backward=7654)


def victim(names: tuple[str, ...] | None = NAMES, classes: int | None = None) -> VictimInfo:
    count = classes if classes is not None else len(names or ())
    return VictimInfo(
        sha256="4f" * 32, classes=count, class_names=names, input_shape=(3, 8, 8), weights="v.safetensors"
    )


EVIDENCE = (
    Evidence(scope="target-wise", kinds=("patch",), target=3, size=2.5, ratio=18.6, log_odds=7.0, p_value=8.9e-6),
    Evidence(scope="untargeted", kinds=("additive",), size=0.4, ratio=1.2, log_odds=-4.0, p_value=0.71),
    Evidence(scope="pair-wise", kinds=("patch",), source=0, target=1, size=4.0, ratio=2.1, log_odds=-3.0, p_value=0.3),
    Evidence(scope="pair-wise", kinds=("patch",), source=1, target=0, size=4.5, ratio=1.9, log_odds=-4.0, p_value=0.6),
)


def scan(
    names: tuple[str, ...] | None = NAMES,
    detected: frozenset[tuple[int, int]] = frozenset({(0, 3), (1, 3), (2, 3)}),
    verdict: str = "backdoor",
    classes: int | None = None,
    **changes: Any,
) -> ScanReport:
    about = victim(names, classes)
    pairs = tuple(
        PairScore(source=s, target=t, kind=kind, size=2.5, score=20.5 if hit else 0.7, detected=hit)
        for kind in ("patch", "additive")
        for t in range(about.classes)
        for s in range(about.classes)
        if s != t
        for hit in ((s, t) in detected,)
    )
    fields: dict[str, Any] = {
        "verdict": verdict,
        "p_value": 0.03,
        "reason": "three pairs stand out",
        "targets": tuple(sorted({t for _, t in detected})),
        "pairs": pairs,
        "evidence": EVIDENCE,
        "cost": COST,
        "victim": about,
        "images": 900,
        "seed": 7,
        "settings": {"steps": 400, "refine": {"restarts": 6}},
        "version": "0.1.0",
    }
    return ScanReport(**(fields | changes))


def clean_scan(**changes: Any) -> ScanReport:
    return scan(detected=frozenset(), verdict="clean", reason="nothing stands out", **changes)


def rate(value: float, margin: float = 0.01) -> Rate:
    return Rate(value=value, low=max(0.0, value - margin), high=min(1.0, value + margin))


def evaluation(guarded: bool = True, asr: float = 0.991, asr_after: float = 0.012) -> Evaluation:
    after = After(acc=rate(0.806), asr=rate(asr_after), sia=rate(0.776), tpr=rate(0.982), fpr=rate(0.084))
    return Evaluation(
        before=Before(acc=rate(0.812), asr=rate(asr), asr_floor=rate(0.021), sia=rate(0.004), sia_ceiling=rate(0.809)),
        after=after if guarded else None,
        counts=Counts(clean=9000, triggered=8100, left_out=900),
        setting="a2o:3",
        victim=victim(),
        cost=COST,
        seed=0,
        version="0.1.0",
    )


def check(asr: float = 0.013) -> TargetCheck:
    return TargetCheck(
        surrogates=(("patch", 4.0),), held_out=(("patch", 7.0),), asr_before=rate(0.98), asr=rate(asr), fpr=rate(0.05)
    )


def guard(**changes: Any) -> GuardCard:
    fields: dict[str, Any] = {
        "victim": victim(),
        "method": "bna",
        "targets": (3,),
        "sources": {3: (0, 1, 2)},
        "settings": {"epochs": 30},
        "images_sha256": ("aa", "bb"),
        "checks": {3: check()},
        "cost": COST,
        "seed": 0,
        "version": "0.1.0",
    }
    return GuardCard(**(fields | changes))


def neuron(corrected: bool = True) -> NeuronHistogram:
    return NeuronHistogram("layer4.bn", 5, [0, 1, 2], [0.75, 0.25], [0.0, 1.0], [0.5, 0.5] if corrected else None)


def patch() -> PatchTrigger:
    mask = torch.zeros(1, 8, 8)
    mask[0, 1:3, 1:3] = 1
    return PatchTrigger(mask, torch.ones(3, 8, 8))


def picture(trigger: PatchTrigger | AdditiveTrigger | None = None, channels: int = 3) -> TriggerPicture:
    trigger = patch() if trigger is None else trigger
    images = torch.randint(0, 256, (2, channels, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return TriggerPicture(3, trigger.kind, trigger.size, trigger, images, (0, 1), (0, 2), (3, 1))


def full(names: tuple[str, ...] = NAMES) -> ReportContent:
    return ReportContent(
        scan=scan(names).model_copy(update={"victim": victim(names)}),
        guard=guard(victim=victim(names)),
        evaluation=evaluation().model_copy(update={"victim": victim(names)}),
        pictures=(picture(), picture(AdditiveTrigger(torch.full((3, 8, 8), 2 / 255)))),
        neuron=neuron(),
        command="untrojan scan --out 'a b'",
        title="Scan of a victim",
    )
