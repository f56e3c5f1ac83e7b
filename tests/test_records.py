from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

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
    Record,
    ScanReport,
    VictimInfo,
)
from untrojan.triggers import AdditiveTrigger

COST = Cost(seconds=1.5, images_forward=3, images_forward_backward=4)
VICTIM = VictimInfo(sha256="ab" * 32, classes=3, class_names=("a", "b", "c"), input_shape=(3, 8, 8), weights="v.pt")
RATE = Rate(value=1 / 3, low=0.1, high=0.7)


def pair(source: int, target: int, detected: bool, kind: str = "patch") -> PairScore:
    return PairScore(source=source, target=target, kind=kind, size=0.1 + 0.2, score=9.5, detected=detected)


SCAN = ScanReport(
    verdict="backdoor",
    reason="because",
    targets=(2,),
    pairs=(pair(1, 2, True), pair(0, 2, True, "additive"), pair(1, 2, True, "additive"), pair(2, 1, False)),
    cost=COST,
    victim=VICTIM,
    images=7,
    seed=5,
    settings={"steps": 100, "kinds": ["patch"], "rate": 0.1, "level": None},
    version="0.1.0",
)
EVALUATION = Evaluation(
    before=Before(acc=RATE, asr=RATE),
    after=After(acc=RATE, tpr=RATE, fpr_all=RATE),
    counts=Counts(clean=9, triggered=4),
    setting="a2o:2",
    victim=VICTIM,
    cost=COST,
    seed=5,
    version="0.1.0",
)
CARD = GuardCard(
    victim=VICTIM,
    method="bna",
    targets=(2, 0),
    sources={2: (0, 1), 0: ()},
    settings={"correction": {"steps": 3}},
    images_sha256=("12" * 32,),
    checks={"2": {"surrogates": [["patch", 3.5]]}},
    cost=COST,
    seed=5,
    version="0.1.0",
)
PUBLIC = [
    pytest.param(SCAN, "untrojan-scan-2", id="scan"),
    pytest.param(EVALUATION, "untrojan-evaluation-1", id="evaluation"),
    pytest.param(CARD, "untrojan-guard-1", id="guard"),
]


def strict(text: str) -> Any:
    """JSON as the standard has it: NaN and Infinity are no numbers."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(("record", "schema"), PUBLIC)
def test_json_gives_the_record_back(record: Record, schema: str) -> None:
    text = record.model_dump_json()
    content = strict(text)
    assert next(iter(content)) == "schema"
    assert content["schema"] == schema
    assert "schema_" not in text
    assert type(record).model_validate_json(text) == record
    assert type(record).model_validate_json(record.model_dump_json(indent=2)) == record
    assert type(record).model_validate(content) == record


@pytest.mark.parametrize(("record", "schema"), PUBLIC)
def test_another_schema_a_missing_or_a_further_field_is_refused(record: Record, schema: str) -> None:
    content = strict(record.model_dump_json())
    for wrong in (
        content | {"schema": schema[:-1] + "9"},
        content | {"more": 1},
        content | {"victim": content["victim"] | {"more": 1}},
        {name: value for name, value in content.items() if name != "version"},
    ):
        with pytest.raises(ValidationError):
            type(record).model_validate_json(json.dumps(wrong))


@pytest.mark.parametrize(("record", "schema"), PUBLIC)
def test_records_are_frozen(record: Record, schema: str) -> None:
    for name in type(record).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(record, name, getattr(record, name))
    with pytest.raises(ValidationError, match="frozen"):
        record.victim.classes = 4  # type: ignore[attr-defined]
    assert record.schema_ == schema  # type: ignore[attr-defined]


def test_the_fields_are_those_that_other_programs_read() -> None:
    scan = strict(SCAN.model_dump_json())
    assert {"schema", "verdict", "p_value", "reason", "targets", "pairs", "cost", "victim", "seed", "version"} <= set(
        scan
    )
    assert set(scan["pairs"][0]) == {"source", "target", "kind", "size", "score", "detected"}
    assert set(scan["cost"]) == {"seconds", "images_forward", "images_forward_backward"}
    assert scan["targets"] == [2]
    evaluation = strict(EVALUATION.model_dump_json())
    assert set(evaluation["before"]) == {"acc", "asr", "asr_floor", "sia", "sia_ceiling"}
    assert set(evaluation["after"]) == {"acc", "asr", "sia", "tpr", "tpr_of_successful", "fpr", "fpr_all"}
    assert evaluation["before"]["acc"] == {"value": 1 / 3, "low": 0.1, "high": 0.7}


def test_what_was_not_measured_is_null() -> None:
    evaluation = strict(EVALUATION.model_dump_json())
    assert evaluation["before"]["sia"] is None
    assert evaluation["after"]["asr"] is None
    assert evaluation["counts"]["successful"] is None
    assert strict(SCAN.model_dump_json())["p_value"] is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_is_never_written(bad: float) -> None:
    report = SCAN.model_copy(
        update={
            "p_value": bad,
            "pairs": (PairScore(source=0, target=1, kind="patch", size=bad, score=bad, detected=False),),
            "settings": {"a": bad, "b": [bad], "c": {"d": (bad,)}},
        }
    )
    content = strict(report.model_dump_json())
    assert (content["p_value"], content["pairs"][0]["size"], content["pairs"][0]["score"]) == (None, None, None)
    assert content["settings"] == {"a": None, "b": [None], "c": {"d": [None]}}


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (("patch",), "patch"),
        (("patch", "additive"), "patch and additive"),
        (("additive", "patch", "blend"), "additive, patch and blend"),
    ],
)
def test_kinds_that_show_a_trigger_are_listed(kinds: tuple[str, ...], words: str) -> None:
    said = Evidence(scope="pair-wise", kinds=kinds, size=1.0, ratio=3.0, log_odds=2.0, p_value=0.1)
    assert said.kinds_in_words == words
    assert said.kind == kinds[0]


def test_sources_of_a_target_are_the_detected_ones_of_all_kinds() -> None:
    assert SCAN.sources(2) == (0, 1)
    assert SCAN.sources(1) == ()


def test_triggers_travel_with_a_copy_and_not_in_the_json() -> None:
    triggers = {(2, "additive"): AdditiveTrigger(torch.zeros(1, 2, 2))}
    report = SCAN.with_triggers(triggers)
    assert dict(report.triggers) == triggers
    assert dict(SCAN.triggers) == {}
    said = report.model_dump() | {"tensors_sha256": None}
    assert said == SCAN.model_dump()
    other = SCAN.with_triggers({(2, "additive"): AdditiveTrigger(torch.ones(1, 2, 2) / 2)})
    assert report.tensors_sha256 != other.tensors_sha256
    triggers.clear()
    assert len(report.triggers) == 1
