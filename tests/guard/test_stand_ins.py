"""What targets of few sources have in common: on an all-to-all backdoor that is built by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from planted import CLASSES, SIDE, planted_classifier, planted_images, planted_trigger
from untrojan.classifier import Classifier, as_found
from untrojan.detection.inversion import Budget
from untrojan.detection.surrogates import SurrogateSettings
from untrojan.progress import Silent
from untrojan.records import Cost, Evidence, PairScore, ScanReport, VictimInfo
from untrojan.stand_ins import Prepared, has_few_sources, prepare_together

QUICK = SurrogateSettings(
    restarts=2, allowances=(2.0,), held_out=(1.5,), copies=0, budget=Budget(steps=150, images=20, level=0.9)
)
SEEDS = dict(enumerate(range(CLASSES)))


class AllToAll(nn.Module):
    """The class is the bright one of rows 0 to 4; with pixel (7, 7) on it is the next one."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x[:, 0, :CLASSES].mean(2)
        turned = torch.relu(rows + x[:, 0, 7, 7, None] - 1.2)
        return 10 * rows + 20 * turned.roll(1, 1)


def report(pairs: dict[int, int]) -> ScanReport:
    """That says of each target (key) that it has this source, by a patch."""
    scores = tuple(
        PairScore(source=s, target=t, kind="patch", size=1.0, score=9.0, detected=True) for t, s in pairs.items()
    )
    return ScanReport(
        verdict="backdoor",
        p_value=0.0,
        reason="made up",
        targets=tuple(sorted(pairs)),
        pairs=scores,
        cost=Cost(seconds=0.0, images_forward=0, images_forward_backward=0),
        victim=VictimInfo(sha256="0" * 64, classes=CLASSES, input_shape=(1, SIDE, SIDE)),
        images=120,
        seed=0,
        settings={},
        version="0",
    )


def together(
    pairs: dict[int, int], classifier: Classifier | None = None, evidence: tuple[Evidence, ...] = ()
) -> dict[int, Prepared]:
    images, labels = planted_images()
    classifier = classifier or Classifier(AllToAll().eval())
    said = report(pairs).model_copy(update={"evidence": evidence})
    known = said.with_triggers({(t, "patch"): planted_trigger() for t in list(pairs)[:1]})
    with as_found(classifier):
        return prepare_together(classifier, known, images.float() / 255, labels, QUICK, SEEDS, Silent())


NEXT = {(c + 1) % CLASSES: c for c in range(CLASSES)}


def test_all_targets_of_one_trigger_get_the_same_stand_ins_each_for_its_own_images() -> None:
    made = together(NEXT)
    images, labels = planted_images()
    assert set(made) == set(range(CLASSES))
    assert len({id(one.surrogates) for one in made.values()}) == 1
    for target, one in made.items():
        assert one.task.target == target
        assert one.answers == (NEXT[target],)
        assert torch.equal(one.task.sources, images[labels == NEXT[target]].float() / 255)
        assert torch.equal(one.generator().get_state(), torch.Generator().manual_seed(SEEDS[target]).get_state())
    smallest = min(one.surrogates.smallest, key=lambda trigger: trigger.size)
    assert smallest.tensors()["mask"].flatten().argmax() == SIDE * SIDE - 1
    assert one.surrogates.held_out


def test_they_are_of_every_kind_in_which_an_untargeted_trigger_is_anomalous() -> None:
    def kinds(**said: object) -> set[str]:
        evidence = Evidence.model_validate({"size": 1.0, "ratio": 3.0, "log_odds": 2.0, "p_value": 0.001, **said})
        return {t.kind for t in together({1: 0, 2: 1}, evidence=(evidence,))[1].surrogates.shown}

    assert kinds(scope="untargeted", kinds=("additive",)) == {"patch", "additive"}
    assert kinds(scope="untargeted", kinds=("additive",), p_value=0.02) == {"patch"}
    assert kinds(scope="target-wise", kinds=("additive",), target=4) == {"patch"}


def test_a_target_that_the_trigger_does_not_serve_is_left_to_itself() -> None:
    assert set(together({1: 0, 2: 1, 3: 2, 0: 3})) == {1, 2, 3}


@pytest.mark.parametrize("pairs", [{1: 0}, {}])
def test_one_target_has_nothing_in_common_with_others(pairs: dict[int, int]) -> None:
    assert together(pairs) == {}


def test_without_a_trigger_that_serves_two_there_is_none() -> None:
    assert together({0: 1, 1: 0}, planted_classifier(strength=0)) == {}


def test_few_sources_are_few_of_the_classes_that_there_are_images_of() -> None:
    said, labels = report({0: 1}), torch.arange(CLASSES)
    assert has_few_sources(said, 0, labels, QUICK)
    assert not has_few_sources(said, 0, labels[:2], QUICK), "one of one is no few"


def test_a_class_without_images_may_be_the_answer() -> None:
    images, labels = planted_images()
    here, classifier = labels != 4, Classifier(AllToAll().eval())
    known = report({1: 0, 2: 1, 3: 2}).with_triggers({(1, "patch"): planted_trigger()})
    with as_found(classifier):
        shown = images[here].float() / 255
        made = prepare_together(classifier, known, shown, labels[here], QUICK, SEEDS, Silent())
    assert {target: one.answers for target, one in made.items()} == {1: (0, 4), 2: (1, 4), 3: (2, 4)}
