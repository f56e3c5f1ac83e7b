"""Rates against those counted by hand: a victim and a guard that answer from tables.

An image is two pixels, its number (0..9) and whether the trigger is on it.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from oracles.correction import decide
from tiny_networks import random_images, shaken, tiny_classifier
from untrojan.classifier.classifier import Classifier
from untrojan.classifier.corrected import CorrectedClassifier
from untrojan.errors import DataError, GuardMismatchError, InconclusiveError, ShapeError, UsageError
from untrojan.evaluation import evaluate, wilson
from untrojan.evaluation.evaluate import Evaluation
from untrojan.guard import Decision, Guard
from untrojan.records import Rate
from untrojan.setting import Setting
from untrojan.triggers import PatchTrigger

LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3, 3])
IMAGES = torch.stack([torch.arange(10), torch.zeros(10, dtype=torch.int64)], 1).view(10, 1, 1, 2).to(torch.uint8)
TRIGGER = PatchTrigger(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[0.0, 1.0]]]))

VICTIM_CLEAN = [0, 0, 3, 1, 1, 2, 2, 2, 3, 0]
VICTIM_TRIGGERED = [3, 3, 3, 3, 1, 3, 2, 0, 3, 3]
GUARD_CLEAN = [0, 0, 1, 1, 1, 0, 2, 2, 1, 0]
GUARD_TRIGGERED = [0, 0, 3, 1, 1, 2, 0, 0, 3, 2]


class Table(nn.Module):
    """Logits that say the class in the table for this image, clean or triggered."""

    def __init__(self, clean: Sequence[int], triggered: Sequence[int], classes: int = 4):
        super().__init__()
        self.table = nn.Parameter(torch.eye(classes)[torch.tensor([clean, triggered])])

    def forward(self, images: Tensor) -> Tensor:
        pixels = (images * 255).round().to(torch.int64)
        return self.table[pixels[:, 0, 0, 1] // 255, pixels[:, 0, 0, 0]]


class TableGuard(nn.Module):
    """Looks like a guard for targets 2 and 3, and answers from its table."""

    flags = True

    def __init__(self, classifier: Classifier):
        super().__init__()
        self.victim = copy.deepcopy(classifier)
        self.corrected = Classifier(Table(GUARD_CLEAN, GUARD_TRIGGERED))
        self.register_buffer("targets", torch.tensor([2, 3]))

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return self.victim, self.corrected

    def forward(self, images: Tensor) -> Decision:
        labels, suspects = self.corrected(images).argmax(1), self.victim(images).argmax(1)
        return Decision(labels, labels != suspects, suspects, torch.zeros(len(images)))


def victim() -> Classifier:
    return Classifier(Table(VICTIM_CLEAN, VICTIM_TRIGGERED)).eval()


def measured(setting: str | None, guarded: bool = True, **more: Any) -> Evaluation:
    classifier = victim()
    return evaluate(
        classifier,
        IMAGES,
        LABELS,
        guard=TableGuard(classifier) if guarded else None,  # type: ignore[arg-type]
        trigger=None if setting is None else TRIGGER,
        setting=None if setting is None else Setting.parse(setting),
        **more,
    )


def rates(record: Any) -> dict[str, Rate | None]:
    return {name: getattr(record, name) for name in type(record).model_fields}


def counted(**fractions: tuple[int, int]) -> dict[str, Rate | None]:
    return {name: wilson(*fraction) for name, fraction in fractions.items()}


def test_all_to_one_by_hand() -> None:
    """Target 3: images 0 to 7 are moved, of which 0, 1, 2, 3 and 5 go to it; 8 and 9 are its own."""
    result = measured("a2o:3", left_out=5)
    assert rates(result.before) == counted(acc=(7, 10), asr=(5, 8), asr_floor=(1, 8), sia=(2, 8), sia_ceiling=(6, 8))
    assert rates(result.after) == counted(
        acc=(6, 10),
        asr=(1, 8),
        sia=(4, 8),
        tpr=(5, 8),
        tpr_of_successful=(4, 5),
        fpr=(1, 2),
        fpr_all=(3, 10),
    )
    assert result.counts.model_dump() == {
        "clean": 10,
        "triggered": 8,
        "successful": 5,
        "target_clean": 2,
        "left_out": 5,
    }


def test_all_to_all_by_hand() -> None:
    """Goals 1 1 1 2 2 2 3 3 0 0: the victim sends none of its triggered images there."""
    result = measured("a2a")
    assert rates(result.before) == counted(
        acc=(7, 10), asr=(0, 10), asr_floor=(2, 10), sia=(4, 10), sia_ceiling=(7, 10)
    )
    assert rates(result.after) == counted(
        acc=(6, 10), asr=(1, 10), sia=(5, 10), tpr=(6, 10), fpr=(3, 10), fpr_all=(3, 10)
    ) | {"tpr_of_successful": None}
    assert result.counts.model_dump() == {
        "clean": 10,
        "triggered": 10,
        "successful": 0,
        "target_clean": 10,
        "left_out": 0,
    }


def test_source_to_target_by_hand() -> None:
    """Only images 0, 1 and 2, of class 0, are moved, to class 3."""
    result = measured("s2t:0>3")
    assert rates(result.before) == counted(acc=(7, 10), asr=(3, 3), asr_floor=(1, 3), sia=(0, 3), sia_ceiling=(2, 3))
    assert rates(result.after) == counted(
        acc=(6, 10), asr=(1, 3), sia=(2, 3), tpr=(2, 3), tpr_of_successful=(2, 3), fpr=(1, 2), fpr_all=(3, 10)
    )
    assert (result.counts.triggered, result.counts.successful, result.counts.target_clean) == (3, 3, 2)


def test_without_a_trigger_nothing_about_it_is_measured() -> None:
    result = measured(None)
    nothing = dict.fromkeys(("asr", "asr_floor", "sia", "sia_ceiling"))
    assert rates(result.before) == counted(acc=(7, 10)) | nothing
    assert rates(result.after) == counted(acc=(6, 10), fpr=(1, 4), fpr_all=(3, 10)) | dict.fromkeys(
        ("asr", "sia", "tpr", "tpr_of_successful")
    )
    assert result.setting is None
    assert result.counts.model_dump() == {
        "clean": 10,
        "triggered": None,
        "successful": None,
        "target_clean": 4,
        "left_out": 0,
    }


def test_without_a_guard_there_is_no_after() -> None:
    result = measured("a2o:3", guarded=False)
    assert result.after is None
    assert result.before == measured("a2o:3").before
    assert result.counts == measured("a2o:3").counts
    alone = measured(None, guarded=False)
    assert alone.after is None
    assert alone.counts.target_clean is None


def test_a_setting_alone_says_whose_false_alarms_count() -> None:
    classifier = victim()
    guard: Any = TableGuard(classifier)
    result = evaluate(classifier, IMAGES, LABELS, guard=guard, setting=Setting.parse("a2o:3"))
    assert result.after is not None
    assert result.after.fpr == wilson(1, 2)
    assert result.after.tpr is None
    assert result.before.asr is None
    assert result.counts.triggered is None


def test_what_else_the_record_says() -> None:
    result = measured("s2t:0>3", seed=7)
    assert (result.setting, result.seed, result.victim.classes) == ("s2t:0>3", 7, 4)
    assert result.victim.sha256 == victim().sha256()
    assert result.victim.input_shape == (1, 1, 2)
    assert Evaluation.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize("batch_size", [1, 3, 10, 1000])
def test_neither_batches_nor_the_order_of_images_matter(batch_size: int) -> None:
    wanted = measured("a2o:3")
    result = measured("a2o:3", batch_size=batch_size)
    assert (result.before, result.after, result.counts) == (wanted.before, wanted.after, wanted.counts)
    classifier, order = victim(), torch.randperm(10, generator=torch.Generator().manual_seed(0))
    mixed = evaluate(
        classifier,
        IMAGES[order] / 255,
        LABELS[order],
        guard=TableGuard(classifier),  # type: ignore[arg-type]
        trigger=TRIGGER,
        setting=Setting.parse("a2o:3"),
    )
    assert (mixed.before, mixed.after, mixed.counts) == (wanted.before, wanted.after, wanted.counts)


def tiny(count: int = 40) -> tuple[Classifier, Guard, Tensor, Tensor, PatchTrigger]:
    classifier = tiny_classifier()
    guard = Guard(classifier, [0, 2], shaken(CorrectedClassifier(classifier, 2).theta(), 1))
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(5, (count,), generator=generator)
    mask = (torch.rand(1, 4, 4, generator=generator) > 0.5).float()
    return (
        classifier,
        guard,
        random_images(count, 3),
        labels,
        PatchTrigger(mask, torch.rand(2, 4, 4, generator=generator)),
    )


def test_a_real_guard_counted_image_by_image() -> None:
    classifier, guard, images, labels, trigger = tiny()
    corrected = {}
    for row, target in enumerate([0, 2]):
        corrected[target] = CorrectedClassifier(classifier)
        corrected[target].load_theta({name: v[row : row + 1] for name, v in guard.corrected.theta().items()})
    clean = [decide(image, classifier, corrected) for image in images / 255]
    moved = [(image, int(label)) for image, label in zip(images / 255, labels, strict=True) if label != 2]
    stamped = [(decide(trigger.stamp(image[None])[0], classifier, corrected), label) for image, label in moved]
    result = evaluate(classifier, images, labels, guard=guard, trigger=trigger, setting=Setting.parse("a2o:2"))
    before, after, among = (
        result.before,
        result.after,
        [d for d, label in zip(clean, labels, strict=True) if label == 2],
    )
    assert after is not None
    assert before.acc == share_of(d[2] == label for d, label in zip(clean, labels.tolist(), strict=True))
    assert before.asr == share_of(d[2] == 2 for d, _ in stamped)
    assert before.sia == share_of(d[2] == label for d, label in stamped)
    assert after.acc == share_of(d[0] == label for d, label in zip(clean, labels.tolist(), strict=True))
    assert after.asr == share_of(d[0] == 2 for d, _ in stamped)
    assert after.sia == share_of(d[0] == label for d, label in stamped)
    assert after.tpr == share_of(d[1] for d, _ in stamped)
    assert after.tpr_of_successful == share_of(d[1] for d, _ in stamped if d[2] == 2)
    assert after.fpr == share_of(d[1] for d in among)
    assert after.fpr_all == share_of(d[1] for d in clean)


def share_of(hits: Any) -> Rate | None:
    listed = [bool(hit) for hit in hits]
    return wilson(sum(listed), len(listed))


def test_every_pass_is_counted_those_of_the_guard_too() -> None:
    classifier, guard, images, labels, trigger = tiny()
    moved = images[labels != 2]
    second = sum(
        int(torch.isin(guard(x).suspect_labels, guard.targets).sum())
        for x in (images / 255, trigger.stamp(moved / 255))
    )
    assert second > 0
    setting = Setting.parse("a2o:2")
    classifier.predict(images[:1])  # settles the memory format, which takes a pass of its own the first time
    alone = evaluate(classifier, images, labels, trigger=trigger, setting=setting).cost
    guarded = evaluate(classifier, images, labels, guard=guard, trigger=trigger, setting=setting).cost
    to_learn_the_number_of_classes = 1
    assert alone.images_forward == to_learn_the_number_of_classes + len(images) + len(moved)
    assert guarded.images_forward == alone.images_forward + second
    assert alone.images_forward_backward == guarded.images_forward_backward == 0
    assert 0 < guarded.seconds < 60


def test_the_victim_is_as_found() -> None:
    classifier, guard, images, labels, trigger = tiny()
    classifier.train()
    classifier.module[1].eval()
    classifier.module[0].weight.requires_grad_(False)
    classifier.module[5].bias.grad = torch.ones(5)
    classifier.register_forward_hook(lambda *_: None)
    before = described(classifier, guard)
    evaluate(classifier, images, labels, guard=guard, trigger=trigger, setting=Setting.parse("a2a"))
    assert described(classifier, guard) == before
    evaluate(classifier, images, labels)
    assert described(classifier, guard) == before
    with pytest.raises(DataError):
        evaluate(classifier, images, labels + 3, setting=Setting.parse("a2a"))
    assert described(classifier, guard) == before


def described(*modules: nn.Module) -> list[Any]:
    told: list[Any] = [torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())]
    for module in modules:
        told += [(layer.training, list(layer._forward_hooks)) for layer in module.modules()]
        told += [(p.requires_grad, id(p.grad), p.tolist()) for p in module.parameters()]
        told += [b.tolist() for b in module.buffers()]
    return told


def test_progress_reaches_its_end() -> None:
    class Listed:
        def start(self, what: str, total: int) -> None:
            self.total, self.done = total, 0

        def advance(self, steps: int = 1) -> None:
            self.done += steps

    for setting, images in [("a2o:3", 18), ("s2t:0>3", 13), (None, 10)]:
        progress: Any = Listed()
        measured(setting, progress=progress, batch_size=4)
        assert progress.total == progress.done == images


def test_errors() -> None:
    classifier, setting = victim(), Setting.parse("a2o:3")
    with pytest.raises(DataError, match="needs images"):
        evaluate(classifier, IMAGES[:0], LABELS[:0])
    for labels in (LABELS[:9], LABELS[:, None], LABELS.to(torch.uint8), LABELS.tolist()):
        with pytest.raises(DataError, match="one int64 label for each of the 10 images"):
            evaluate(classifier, IMAGES, labels)
    for images in (IMAGES.float(), IMAGES.float() / 255 - 0.1, torch.full(IMAGES.shape, torch.nan)):
        with pytest.raises(ShapeError, match=r"finite and lie in \[0, 1\]"):
            evaluate(classifier, images, LABELS)
    with pytest.raises(UsageError, match="together with its setting"):
        evaluate(classifier, IMAGES, LABELS, trigger=TRIGGER)
    with pytest.raises(UsageError, match=r"Setting\.parse\('a2o:9'\), say; got 'a2o:3'"):
        evaluate(classifier, IMAGES, LABELS, setting="a2o:3")  # type: ignore[arg-type]
    for size in (0, -1):
        with pytest.raises(UsageError, match="batch_size"):
            evaluate(classifier, IMAGES, LABELS, batch_size=size)
    with pytest.raises(UsageError, match="class 4 does not exist"):
        evaluate(classifier, IMAGES, LABELS, trigger=TRIGGER, setting=Setting.parse("a2o:4"))
    with pytest.raises(DataError, match=r"labels must lie in 0\.\.3, got 1\.\.4"):
        evaluate(classifier, IMAGES, LABELS + 1, trigger=TRIGGER, setting=setting)
    with pytest.raises(DataError, match="none of the test images is of a class that setting 'a2o:3' moves"):
        evaluate(classifier, IMAGES[8:], LABELS[8:], trigger=TRIGGER, setting=setting)


def test_the_guard_of_another_victim() -> None:
    _, guard, images, labels, _ = tiny()
    with pytest.raises(GuardMismatchError, match="made for another victim"):
        evaluate(tiny_classifier(1), images, labels, guard=guard)


def test_labels_that_are_no_classes_and_answers_that_are_no_numbers_are_not_measured() -> None:
    victim, broken = (
        Classifier(Table(VICTIM_CLEAN, VICTIM_TRIGGERED)),
        Classifier(Table(VICTIM_CLEAN, VICTIM_TRIGGERED)),
    )
    with pytest.raises(DataError, match=r"0\.\.3, got 0\.\.4"):
        evaluate(victim, IMAGES, LABELS + LABELS.eq(3))
    with torch.no_grad():
        broken.module.table[0, 9] = torch.nan  # the answer to the last image alone
    with pytest.raises(InconclusiveError, match="not finite numbers"):
        evaluate(broken, IMAGES, LABELS, batch_size=3)
    assert not broken._forward_hooks
