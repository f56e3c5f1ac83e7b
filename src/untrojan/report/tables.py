"""Rows of the report's tables: pairs, rates, costs, settings. Pure functions of the records."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from untrojan.records import Cost, Evaluation, Evidence, GuardCard, PairScore, Rate, ScanReport, VictimInfo
from untrojan.report.content import ReportContent
from untrojan.report.wording import duration, measured


@dataclass(frozen=True)
class RateRow:
    """One measure: ``applies_before`` is False for those that only a guard has."""

    name: str
    meaning: str
    before: Rate | None
    after: Rate | None
    reference: Rate | None = None
    reference_name: str | None = None
    applies_before: bool = True


@dataclass(frozen=True)
class CostRow:
    """What one step spent."""

    step: str
    duration: str
    cost: Cost


@dataclass(frozen=True)
class Facts:
    """A titled list of (label, value)."""

    title: str
    rows: tuple[tuple[str, str], ...]


def kinds(scan: ScanReport) -> tuple[str, ...]:
    """The trigger kinds searched for, in the order of their first pair."""
    return tuple(dict.fromkeys(pair.kind for pair in scan.pairs))


def top_pairs(pairs: Sequence[PairScore], limit: int) -> tuple[PairScore, ...]:
    """Detected pairs first, then by falling score; pairs without a score last."""

    def rank(pair: PairScore) -> tuple[bool, float, int, int]:
        known = pair.score is not None and not math.isnan(pair.score)
        return (
            not pair.detected,
            -pair.score if known and pair.score is not None else math.inf,
            pair.target,
            pair.source,
        )

    return tuple(sorted(pairs, key=rank)[:limit])


def clearest(scan: ScanReport, limit: int = 6) -> tuple[Evidence, ...]:
    """The named hypotheses and the likeliest others, in the scan's order."""
    return scan.evidence[:limit]


def rate_rows(evaluation: Evaluation) -> tuple[RateRow, ...]:
    """Every rate of an evaluation, also those that were not measured."""
    before, after = evaluation.before, evaluation.after

    def behind(name: str) -> Rate | None:
        return measured(getattr(after, name)) if after is not None else None

    def guard_only(name: str, meaning: str, field: str) -> RateRow:
        return RateRow(name, meaning, None, behind(field), applies_before=False)

    return (
        RateRow("ACC", "right on clean images", measured(before.acc), behind("acc")),
        RateRow("ASR", "attack succeeds on triggered images", measured(before.asr), behind("asr"),
                measured(before.asr_floor), "floor"),
        RateRow("SIA", "right on triggered images", measured(before.sia), behind("sia"),
                measured(before.sia_ceiling), "ceiling"),
        guard_only("TPR", "triggered images flagged", "tpr"),
        guard_only("TPR of successful", "flagged, of those on which the attack works", "tpr_of_successful"),
        guard_only("FPR", "clean images of target classes flagged", "fpr"),
        guard_only("FPR, all", "clean images of any class flagged", "fpr_all"),
    )  # fmt: skip


def count_rows(evaluation: Evaluation) -> tuple[tuple[str, int], ...]:
    """On how many images the rates stand; counts that do not apply are left out."""
    counts = evaluation.counts
    rows: list[tuple[str, int | None]] = [
        ("clean test images", counts.clean),
        ("triggered images", counts.triggered),
        ("triggered images on which the attack works", counts.successful),
        ("clean images of the target classes", counts.target_clean),
        ("left out because the guard was made with them", counts.left_out or None),
    ]
    return tuple((label, value) for label, value in rows if value is not None)


def cost_rows(content: ReportContent) -> tuple[CostRow, ...]:
    """What scan, repair and evaluation spent, as far as each was done."""
    steps = (("Scan", content.scan), ("Repair", content.guard), ("Evaluation", content.evaluation))
    return tuple(CostRow(n, duration(r.cost.seconds), r.cost) for n, r in steps if r is not None)


def facts(content: ReportContent) -> tuple[Facts, ...]:
    """Everything that is needed to get the same result again."""
    groups: list[Facts] = []
    if content.victim is not None:
        groups.append(Facts("Classifier", _victim(content.victim)))
    if (scan := content.scan) is not None:
        made = _made(scan, ("Clean images", f"{scan.images:,}"), ("Target classes", _targets(scan.targets)))
        groups.append(Facts("Scan", (*made, *_settings(scan.settings))))
    if (guard := content.guard) is not None:
        images = ("Clean images", f"{len(guard.images_sha256):,}")
        made = _made(guard, ("Method", guard.method), ("Target classes", _targets(guard.targets)), images)
        groups.append(Facts("Repair", (*made, *_settings(guard.settings))))
        if guard.checks:
            checks = {f"target {target}": check.model_dump() for target, check in guard.checks.items()}
            groups.append(Facts("Checks of the guard", _settings(checks)))
    if (evaluation := content.evaluation) is not None:
        groups.append(Facts("Evaluation", _made(evaluation, ("Attack setting", evaluation.setting or "not known"))))
    return tuple(groups)


def _made(record: ScanReport | GuardCard | Evaluation, *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return ("Version", record.version), ("Seed", str(record.seed)), *more


def _targets(targets: Sequence[int]) -> str:
    return ", ".join(map(str, targets)) or "none"


def _victim(victim: VictimInfo) -> tuple[tuple[str, str], ...]:
    rows = [("SHA-256", victim.sha256)]
    rows += [("Model", victim.model)] if victim.model else []
    rows += [("Weights", victim.weights)] if victim.weights else []
    return (*rows, ("Classes", str(victim.classes)), ("Input", "×".join(map(str, victim.input_shape))))


def _settings(settings: Mapping[str, Any], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """Nested settings as dotted names."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows.extend(_settings(value, f"{prefix}{key}."))
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
            rows.append((f"{prefix}{key}", text))
    return tuple(rows)
