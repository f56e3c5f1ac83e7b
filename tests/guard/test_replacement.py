"""A replaced network behind the interface of a guard, and its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

import untrojan
from tiny_networks import random_images, shaken, tiny_classifier
from untrojan.classifier.corrected import CorrectedClassifier
from untrojan.errors import CheckpointError, GuardMismatchError, ShapeError, UsageError
from untrojan.guard import Guard, Replacement, Strip, load_guard, save_guard
from untrojan.guard.files import CARD, WEIGHTS
from untrojan.pipeline import tune

IMAGES = random_images(60, seed=5)
LABELS = torch.arange(60) % 5


def made(name: str = "ft", **options: object) -> Replacement:
    options = options or ({"steps": 5} if name == "mmac" else {"epochs": 3, "learning_rate": 0.1})
    return tune(tiny_classifier(), IMAGES, LABELS, method=name, options=options)


def test_every_image_gets_the_other_networks_answer_and_no_flag() -> None:
    classifier, guard = tiny_classifier(), made()
    decision = guard(IMAGES)
    assert torch.equal(decision.suspect_labels, classifier.predict(IMAGES).argmax(1))
    assert torch.equal(decision.labels, guard.repaired(IMAGES).argmax(1))
    assert not torch.equal(decision.labels, decision.suspect_labels)
    assert not decision.triggered.any()
    assert decision.score.dtype == torch.float32


@pytest.mark.parametrize("images", [IMAGES * float("nan"), IMAGES.float(), IMAGES.numpy()], ids=["nan", "255", "numpy"])
def test_what_is_no_image_is_refused_by_every_guard(images: object) -> None:
    classifier = tiny_classifier()
    guards = [
        made(),
        Guard(classifier, [1], CorrectedClassifier(classifier).theta()),
        Strip(classifier, IMAGES, overlays=9),
    ]
    for guard in guards:
        with pytest.raises(ShapeError):
            guard(images)
        with pytest.raises(ShapeError):
            untrojan.evaluate(classifier, images, LABELS, guard=guard)  # type: ignore[arg-type]
        assert [len(told) for told in guard(IMAGES[:0])] == [0, 0, 0, 0]
        floats = IMAGES.float() / 255
        assert torch.equal(guard(floats.clone().requires_grad_()).labels, guard(floats).labels)


@pytest.mark.parametrize("name", ["ft", "mmac"])
def test_it_comes_back_and_decides_the_same(name: str, tmp_path: Path) -> None:
    guard = made(name)
    save_guard(tmp_path, guard)
    again = load_guard(tmp_path, tiny_classifier())
    assert isinstance(again, Replacement)
    for wanted, got in zip(guard(IMAGES), again(IMAGES), strict=True):
        assert torch.equal(wanted, got)
    assert again.card == guard.card
    assert again.require_card().form == "replacement"
    assert again.require_card().method == name


def test_it_is_of_one_victim_alone(tmp_path: Path) -> None:
    save_guard(tmp_path, made())
    with pytest.raises(GuardMismatchError):
        load_guard(tmp_path, tiny_classifier(seed=1))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {f"other/{n}": v for n, v in t.items()},
        lambda t: {n.replace("weights/", "weights/x"): v for n, v in t.items()},
        lambda t: {n: v.flatten()[:1].clone() for n, v in t.items()},
        lambda t: {n: torch.full_like(v, torch.nan) if v.is_floating_point() else v for n, v in t.items()},
        lambda t: {"theta/0|mean": torch.zeros(1, 4)},
    ],
)
def test_a_file_that_fits_no_network_is_refused(change, tmp_path: Path) -> None:
    save_guard(tmp_path, made())
    tensors = safetensors.torch.load_file(tmp_path / WEIGHTS)
    victim = json.loads((tmp_path / CARD).read_text())["victim"]["sha256"]
    safetensors.torch.save_file(
        change(tensors), tmp_path / WEIGHTS, metadata={"format": "untrojan-guard-1", "victim": victim}
    )
    with pytest.raises(CheckpointError):
        load_guard(tmp_path, tiny_classifier())


def test_rates_of_flagged_images_are_not_measured() -> None:
    guard = made()
    trigger = untrojan.AdditiveTrigger(torch.full((2, 4, 4), 0.2))
    result = untrojan.evaluate(
        tiny_classifier(), IMAGES, LABELS, guard=guard, trigger=trigger, setting=untrojan.Setting.parse("a2o:1")
    )
    assert result.after is not None
    assert result.after.acc is not None
    assert result.after.asr is not None
    for name in ("tpr", "tpr_of_successful", "fpr", "fpr_all"):
        assert getattr(result.after, name) is None
    # Both networks and the victim's own view are counted.
    assert result.cost.images_forward >= 2 * len(IMAGES)


def test_a_row_of_corrections_is_applied() -> None:
    classifier = tiny_classifier()
    theta = shaken(CorrectedClassifier(classifier).theta(), 3)
    guard = Replacement(classifier, [1], {}, theta)
    expected = CorrectedClassifier(classifier)
    expected.load_theta(theta)
    assert torch.equal(guard(IMAGES).labels, expected(IMAGES).argmax(1))
    assert {n: t.tolist() for n, t in guard.contents()[1].items()} == {n: t.tolist() for n, t in theta.items()}


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("gradual", {}, "is not one of bna, ft"),
        ("ft", {"epoch": 3}, "no option 'epoch'; it has epochs"),
        ("ft", {"epochs": "many"}, "method ft: epochs cannot be 'many'"),
        ("ft", {"epochs": 0}, "epochs >= 1"),
        ("nc", {}, "trigger"),
    ],
)
def test_wrong_methods_and_options_are_named(name: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tune(tiny_classifier(), IMAGES, LABELS, method=name, options=options)


def test_options_given_as_text_are_converted() -> None:
    card = tune(tiny_classifier(), IMAGES, LABELS, method="ft", options={"epochs": "1"}).require_card()
    assert card.settings["tuning"]["schedule"]["epochs"] == 1
