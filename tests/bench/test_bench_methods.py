"""What a plan's methods make of a victim; the search for triggers is not their business."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tiny_networks import random_images, shaken, tiny_classifier
from untrojan.bench.methods import Given, method_for, method_names
from untrojan.bench.plan import MethodSpec
from untrojan.classifier.corrected import CorrectedClassifier
from untrojan.correction import TUNINGS
from untrojan.detection.surrogates import SurrogateSettings
from untrojan.errors import DataError, UsageError
from untrojan.guard import Guard, Replacement, Strip
from untrojan.identity import victim_info
from untrojan.records import Cost, GuardCard

IMAGES, LABELS = random_images(80, seed=5), torch.arange(80) % 5
COST = Cost(seconds=1.0, images_forward=2, images_forward_backward=3)


def given(**more: Any) -> Given:
    return Given(tiny_classifier(), IMAGES, LABELS, more.get("report"), seed=0)


def spec(name: str, **more: Any) -> MethodSpec:
    own = {"options": {}, "label": name, "recipe": "untrojan", "surrogates": {}, "margin_share": None}
    return MethodSpec(name=name, **own | {"test_limit": None, "varied": ()} | more)


def guard_of(*targets: int) -> Guard:
    classifier = tiny_classifier()
    guard = Guard(classifier, targets, shaken(CorrectedClassifier(classifier, len(targets)).theta(), 1))
    guard.card = GuardCard(
        victim=victim_info(classifier, IMAGES),
        method="bna",
        targets=targets,
        sources={},
        settings={},
        images_sha256=(),
        cost=COST,
        seed=0,
        version="0",
    )
    return guard


def test_every_method_of_the_product_can_be_named() -> None:
    assert {"none", "strip", "bna", "bna-alone", *TUNINGS} == set(method_names())
    for name in method_names():
        method_for(spec(name))


def test_without_the_rule_every_image_gets_the_corrected_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = guard_of(3)
    monkeypatch.setattr("untrojan.bench.methods.prepare", lambda *_, **__: "stand-ins")
    monkeypatch.setattr("untrojan.bench.methods.repair", lambda *_, **__: guard)
    made, cost = method_for(spec("bna-alone")).guard(given(report="a report"))
    assert isinstance(made, Replacement)
    assert cost == COST
    assert torch.equal(made(IMAGES).labels, guard.corrected(IMAGES).argmax(1))
    assert not torch.equal(made(IMAGES).labels, guard(IMAGES).labels)


def test_without_the_rule_there_can_be_one_target_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("untrojan.bench.methods.prepare", lambda *_, **__: "stand-ins")
    monkeypatch.setattr("untrojan.bench.methods.repair", lambda *_, **__: guard_of(3, 1))
    with pytest.raises(DataError, match="one target"):
        method_for(spec("bna-alone")).guard(given(report="a report"))


def test_corrections_of_one_victim_share_their_stand_ins_if_they_ask_for_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[SurrogateSettings] = []
    used: list[str] = []

    def prepare(*_: Any, settings: SurrogateSettings, **__: Any) -> str:
        made.append(settings)
        return f"stand-ins {len(made)}"

    def repair(*_: Any, stand_ins: str, **__: Any) -> Guard:
        used.append(stand_ins)
        return guard_of(3)

    monkeypatch.setattr("untrojan.bench.methods.prepare", prepare)
    monkeypatch.setattr("untrojan.bench.methods.repair", repair)
    victim = given(report="a report")
    for more in ({}, {"options": {"tau": 50.0}}, {"surrogates": {"restarts": 1}}, {"margin_share": 0.0}):
        method_for(spec("bna", **more)).guard(victim)
    assert used == ["stand-ins 1", "stand-ins 1", "stand-ins 2", "stand-ins 1"]
    method_for(spec("bna")).guard(given(report="a report"))
    assert used[-1] == "stand-ins 3"


def test_a_tuning_method_needs_no_verdict_and_its_options_are_told_apart() -> None:
    method = method_for(spec("ft", options={"epochs": 1}))
    assert not method.needs_scan
    assert method.resolved() != method_for(spec("ft", options={"epochs": 2})).resolved()
    made, cost = method.guard(given())
    assert isinstance(made, Replacement)
    assert cost is not None
    assert cost.images_forward_backward == 64, "one step, of a batch"
    assert method_for(spec("nc")).needs_scan


def test_strip_and_none() -> None:
    made, _ = method_for(spec("strip", options={"overlays": 5})).guard(given())
    assert isinstance(made, Strip)
    assert method_for(spec("none")).guard(given()) == (None, None)


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("magic", {}, "is not one of none, strip, bna, bna-alone, ft"),
        ("ft", {"recipe": "paper"}, "takes no recipe"),
        ("ft", {"options": {"epoch": 1}}, "no option 'epoch'"),
        ("ft", {"options": {"epochs": 0}}, "epochs >= 1"),
        ("bna-alone", {"options": {"steps": 0}}, "steps"),
    ],
)
def test_what_is_wrong_is_told(name: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        method_for(spec(name, **more))
