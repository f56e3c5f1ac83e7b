from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from tiny_networks import random_images, shaken, tiny_classifier
from untrojan.classifier.classifier import Classifier
from untrojan.classifier.corrected import CorrectedClassifier
from untrojan.errors import CheckpointError, GuardMismatchError, OutputError, UnsupportedError, UsageError
from untrojan.guard import Guard, load_card, load_guard, save_guard
from untrojan.guard.files import CARD, FORMAT, WEIGHTS, allowed, tensors_of
from untrojan.guard.replacement import Replacement
from untrojan.identity import victim_info
from untrojan.records import Cost, GuardCard
from untrojan.storage import tensors_sha256

IMAGES = random_images(64, seed=5)


def guard_with_card() -> tuple[Classifier, Guard]:
    classifier = tiny_classifier()
    guard = Guard(classifier, [4, 1], shaken(CorrectedClassifier(classifier, 2).theta(), 1))
    guard.card = GuardCard(
        victim=victim_info(classifier, IMAGES),
        method="bna",
        targets=(4, 1),
        sources={4: (0, 1), 1: (2,)},
        settings={"steps": 3},
        images_sha256=("ab" * 32,),
        cost=Cost(seconds=1.0, images_forward=2, images_forward_backward=3),
        seed=7,
        version="0.1.0",
    )
    return classifier, guard


def test_a_guard_comes_back_and_decides_the_same(tmp_path: Path) -> None:
    classifier, guard = guard_with_card()
    save_guard(tmp_path / "new", guard)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["guard.json", "guard.safetensors"]
    again = load_guard(tmp_path / "new", tiny_classifier())
    for wanted, got in zip(guard(IMAGES), again(IMAGES), strict=True):
        assert torch.equal(wanted, got)
    assert guard(IMAGES).triggered.any()
    assert again.card == guard.card == load_card(tmp_path / "new")
    for name, value in guard.corrected.theta().items():
        assert torch.equal(again.corrected.theta()[name], value)
    assert classifier.sha256() == tiny_classifier().sha256()


def test_a_guard_without_bounds_keeps_its_infinities(tmp_path: Path) -> None:
    classifier, guard = guard_with_card()
    guard.corrected.load_theta(CorrectedClassifier(classifier, 2).theta())
    save_guard(tmp_path, guard)
    assert (load_guard(tmp_path, classifier).corrected.theta()["1|high"] == torch.inf).all()


def test_another_victim_is_refused(tmp_path: Path) -> None:
    classifier, guard = guard_with_card()
    save_guard(tmp_path, guard)
    others = [
        tiny_classifier(1),
        Classifier(classifier.module, mean=[0.4, 0.5], std=[0.3, 0.3]),
        Classifier(classifier.module),
    ]
    for other in others:
        with pytest.raises(GuardMismatchError, match=f"made for the victim {classifier.sha256()[:12]}"):
            load_guard(tmp_path, other)


def test_the_two_files_belong_together(tmp_path: Path) -> None:
    classifier, guard = guard_with_card()
    save_guard(tmp_path, guard)
    rewrite(tmp_path / WEIGHTS, guard.corrected.theta(), victim="00" * 32)
    with pytest.raises(GuardMismatchError, match="made for the victim 000000000000"):
        load_guard(tmp_path, classifier)


def test_a_guard_put_together_by_hand_cannot_be_saved(tmp_path: Path) -> None:
    _, guard = guard_with_card()
    guard.card = None
    with pytest.raises(UsageError, match="no card"):
        save_guard(tmp_path / "new", guard)
    assert not (tmp_path / "new").exists()


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_guard(tmp_path, guard_with_card()[1])
    assert not list(tmp_path.iterdir())


def rewrite(path: Path, tensors: dict[str, Tensor], **metadata: str) -> None:
    known = {"format": FORMAT, "victim": tiny_classifier().sha256()}
    path.write_bytes(safetensors.torch.save(tensors, known | metadata))


def refused(folder: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_guard(folder, tiny_classifier())
    assert len(str(caught.value).splitlines()) == 1
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "no such file; give the folder"),
        (lambda p: p.write_bytes(b""), "not a guard card"),
        (lambda p: p.write_bytes(p.read_bytes()[:-20]), "not a guard card"),
        (lambda p: p.write_bytes(b"\xff\xfe"), "not a text file"),
        (lambda p: p.write_bytes(b"{}"), "not a guard card"),
        (lambda p: change(p, schema="untrojan-guard-2"), "not a guard card: schema"),
        (lambda p: change(p, more=1), "not a guard card: more"),
        (lambda p: change(p, targets="all"), "not a guard card: targets"),
        (lambda p: change(p, targets=[]), "its targets are not distinct|one row per target"),
        (lambda p: change(p, targets=[1, 1]), "its targets are not distinct classes"),
        (lambda p: change(p, targets=[1, -4]), "its targets are not distinct classes"),
        (lambda p: change(p, targets=[1, 10**30]), "not a guard card|targets"),
        (lambda p: change(p, targets=[1, 2, 3]), "does not hold one row per target"),
        (lambda p: change(p, margin_share=1.5), "not a guard card: margin_share"),
        (lambda p: change(p, margin_share=float("nan")), "not a guard card"),
        (lambda p: change(p, usual_margins={"4": float("inf")}), "not a guard card"),
    ],
)
def test_a_malformed_card(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    save_guard(tmp_path, guard_with_card()[1])
    damage(tmp_path / CARD)
    refused(tmp_path, message)


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: {}, "one row per target"),
        (lambda t: {name: value[:1] for name, value in t.items()}, "one row per target"),
        (lambda t: {name: value[0].clone() for name, value in t.items()}, "one row per target"),
        (lambda t: t | {"1|mean": torch.zeros(2, 5)}, "its layers are not those of this classifier"),
        (lambda t: t | {"9|mean": torch.zeros(2, 4)}, "its layers are not those of this classifier"),
        (lambda t: {name: value for name, value in t.items() if name != "1|low"}, "its layers are not those"),
        (lambda t: t | {"1|low": torch.full((2, 4), torch.nan)}, "1 low holds NaN"),
    ],
)
def test_malformed_tensors(
    tmp_path: Path, damage: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    _, guard = guard_with_card()
    save_guard(tmp_path, guard)
    rewrite(tmp_path / WEIGHTS, damage(guard.corrected.theta()))
    refused(tmp_path, message)


def test_a_missing_truncated_or_other_weights_file(tmp_path: Path) -> None:
    _, guard = guard_with_card()
    save_guard(tmp_path, guard)
    whole = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(whole[:-1])
    refused(tmp_path, "not a readable safetensors file")
    rewrite(tmp_path / WEIGHTS, guard.corrected.theta(), format="untrojan-trigger-1")
    refused(tmp_path, "not a guard file")
    (tmp_path / WEIGHTS).unlink()
    refused(tmp_path, "no such file")
    refused(tmp_path / "nowhere", "no such file; give the folder")


def test_answers_come_back_with_the_guard(tmp_path: Path) -> None:
    classifier, guard = guard_with_card()
    card = guard.require_card().model_copy(update={"answers": {4: (0,)}})
    theta = guard.corrected.theta()
    limited = Guard(classifier, (4, 1), theta, answers=allowed({4: (0,)}, (4, 1), 5))
    limited.card = card
    save_guard(tmp_path, limited)
    again = load_guard(tmp_path, tiny_classifier())
    assert again.answers is not None
    assert again.answers.tolist() == [[True, False, False, False, True], [True] * 5]
    assert torch.equal(again(IMAGES).labels, limited(IMAGES).labels)


def test_answers_that_are_no_classes_are_refused(tmp_path: Path) -> None:
    _, guard = guard_with_card()
    guard.card = guard.require_card().model_copy(update={"answers": {4: (7,)}})
    save_guard(tmp_path, guard)
    with pytest.raises(CheckpointError, match="not classes"):
        load_guard(tmp_path, tiny_classifier())


def test_margins_come_back_with_the_guard(tmp_path: Path) -> None:
    classifier, guard = guard_with_card()
    card = guard.require_card().model_copy(update={"margin_share": 0.5, "usual_margins": {1: 0.25, 4: -0.5}})
    sure = Guard(classifier, (4, 1), guard.corrected.theta(), margin_share=0.5, usual_margins=[-0.5, 0.25])
    sure.card = card
    save_guard(tmp_path, sure)
    again = load_guard(tmp_path, tiny_classifier())
    for wanted, got in zip(sure(IMAGES), again(IMAGES), strict=True):
        assert torch.equal(wanted, got)
    assert not torch.equal(sure(IMAGES).score, guard(IMAGES).score)


def test_a_guard_of_two_runs_is_refused(tmp_path: Path) -> None:
    classifier, guard = guard_with_card()
    guard.card = guard.require_card().model_copy(update={"tensors_sha256": tensors_sha256(tensors_of(guard))})
    save_guard(tmp_path, guard)
    load_guard(tmp_path, classifier)
    rewrite(tmp_path / WEIGHTS, shaken(guard.corrected.theta(), 2))
    refused(tmp_path, "was not written together with guard.json")


def test_a_replacement_whose_network_ties_its_weights_comes_back(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 4))
    module[2].weight = module[1].weight
    classifier = Classifier(module.eval())
    other = {name: value + 1 for name, value in module.state_dict().items()}
    guard = Replacement(classifier, (), other)
    guard.card = (
        guard_with_card()[1]
        .require_card()
        .model_copy(
            update={"victim": victim_info(classifier, torch.zeros(1, 1, 2, 2)), "form": "replacement", "targets": ()}
        )
    )
    save_guard(tmp_path, guard)
    images = torch.rand(5, 1, 2, 2)
    assert torch.equal(load_guard(tmp_path, classifier)(images).labels, guard(images).labels)


def forwarding(classifier: Classifier) -> Classifier:
    """Its network's forward is a function that holds on to the network itself, as some libraries wrap models."""
    inner = classifier.module.forward
    classifier.module.forward = lambda x: inner(x)  # type: ignore[method-assign]
    return classifier


def test_a_guard_whose_layers_would_never_be_used_is_refused(tmp_path: Path) -> None:
    _, guard = guard_with_card()
    save_guard(tmp_path, guard)
    classifier = forwarding(tiny_classifier())
    with pytest.raises(UnsupportedError, match=r"does not use its own layer .*make it a method"):
        load_guard(tmp_path, classifier)
    assert not any(layer._forward_pre_hooks for layer in classifier.modules())


@pytest.mark.parametrize("shape", [[0, 8, 8], [1, 8, 100_000_000], [7, 8, 8]])
def test_a_card_whose_images_do_not_pass_the_classifier_is_refused(tmp_path: Path, shape: list[int]) -> None:
    _, guard = guard_with_card()
    save_guard(tmp_path, guard)
    card = json.loads((tmp_path / CARD).read_text())
    card["victim"]["input_shape"] = shape
    (tmp_path / CARD).write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match="shape"):
        load_guard(tmp_path, tiny_classifier())
