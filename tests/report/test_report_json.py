from __future__ import annotations

import json
import math

import pytest
from report_examples import clean_scan, evaluation, guard, scan

from untrojan.errors import DataError
from untrojan.records import Evaluation, GuardCard, Record, ScanReport
from untrojan.report import render_json

RECORDS: dict[str, Record] = {"scan": scan(), "clean": clean_scan(), "evaluation": evaluation(False), "guard": guard()}


@pytest.mark.parametrize("name", RECORDS)
def test_schema_first_two_spaces_and_a_newline(name: str) -> None:
    text = render_json(RECORDS[name])
    assert text.startswith('{\n  "schema": "untrojan-')
    assert text.endswith("}\n")
    assert "schema_" not in text


def test_what_is_written_can_be_read_again() -> None:
    assert ScanReport.model_validate_json(render_json(scan())) == scan()
    assert Evaluation.model_validate_json(render_json(evaluation())) == evaluation()
    assert GuardCard.model_validate_json(render_json(guard())) == guard()


def test_what_was_not_measured_is_null() -> None:
    written = json.loads(render_json(evaluation()))
    assert written["after"]["tpr_of_successful"] is None
    assert written["before"]["acc"] == {"value": 0.812, "low": pytest.approx(0.802), "high": pytest.approx(0.822)}
    assert json.loads(render_json(evaluation(False)))["after"] is None


def test_no_number_that_json_does_not_have() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    record = guard(settings={"a": math.nan, "b": {"c": [math.inf, -math.inf, 1.0]}})
    written = json.loads(render_json(record), parse_constant=refuse)
    assert written["settings"] == {"a": None, "b": {"c": [None, None, 1.0]}}


@pytest.mark.parametrize("value", [object(), "\udcff"], ids=["object", "surrogate"])
def test_a_setting_without_a_json_form_is_our_error(value: object) -> None:
    with pytest.raises(DataError, match="GuardCard has no JSON form"):
        render_json(guard(settings={"x": value}))
