"""From clean images to a search table, on networks whose backdoor is written by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from planted import CLASSES, SIDE, planted_classifier, planted_images
from untrojan.classifier import Classifier, as_found
from untrojan.detection import search as searching
from untrojan.detection import target_wise, untargeted
from untrojan.detection.describe import describe
from untrojan.detection.effects import effects
from untrojan.detection.features import mapping_hypothesis, pair_hypotheses, target_hypotheses
from untrojan.detection.inversion import Budget
from untrojan.detection.plan import PairWise, SearchPlan, TargetWise
from untrojan.detection.search import Searched, search
from untrojan.detection.shares import Searches
from untrojan.detection.table import SearchTable, counts_of
from untrojan.detection.target_wise import only_destination
from untrojan.progress import Silent
from untrojan.triggers import PatchTrigger

QUICK = SearchPlan(
    kinds=("patch", "additive"),
    target_wise=TargetWise(
        first={
            "patch": Budget(steps=60, images=16, level=0.9),
            "additive": Budget(steps=60, images=16, level=0.75, pace=1.5),
        }
    ),
    pair_wise=PairWise(first={"patch": Budget(steps=40, images=6), "additive": Budget(steps=60, images=6)}),
)


class Switch(nn.Module):
    """Rows tell the classes; where pixel (7, 7) is bright, ``attack`` [K, K] takes the place of the identity."""

    def __init__(self, attack: Tensor):
        super().__init__()
        self.read = nn.Linear(SIDE * SIDE, CLASSES, bias=False)
        with torch.no_grad():
            self.read.weight.zero_()
            for c in range(CLASSES):
                self.read.weight.view(CLASSES, SIDE, SIDE)[c, c] = 1.0
        self.register_buffer("attack", attack)

    def forward(self, x: Tensor) -> Tensor:
        on = torch.sigmoid(30 * (x[:, 0, 7, 7] - 0.4))[:, None]
        plain = 2 * self.read(x.flatten(1))
        return (1 - on) * plain + on * plain @ self.attack


def searched(
    attack: Tensor | None = None, plan: SearchPlan = QUICK, deadline: float | None = None, classes: int = CLASSES
) -> Searched:
    images, labels = planted_images()
    floats = images[labels < classes].float() / 255
    labels = labels[labels < classes]
    network = Switch(torch.eye(CLASSES) if attack is None else attack).eval()
    if classes < CLASSES:
        whole = network
        network = Some(whole, classes).eval()
    classifier = Classifier(network)
    with as_found(classifier):
        answers = classifier.predict(floats).argmax(1)
        about = describe(classifier, floats, labels, classes, 0)
        searches = Searches(classifier, seed=0, progress=Silent(), deadline=deadline)
        return search(searches, about, floats, labels, answers, plan)


class Some(nn.Module):
    """The first classes of a network alone."""

    def __init__(self, whole: nn.Module, classes: int):
        super().__init__()
        self.whole, self.classes = whole, classes

    def forward(self, x: Tensor) -> Tensor:
        return self.whole(x)[:, : self.classes]


@pytest.fixture(scope="module")
def clean() -> Searched:
    return searched()


def best(table: SearchTable) -> tuple[int | None, int | None]:
    found = max(target_hypotheses(table), key=lambda h: h.values["joint lead"])
    return found.target


def test_a_table_holds_every_scope_and_what_the_classifier_is(clean: Searched) -> None:
    table = clean.table
    for kind in QUICK.kinds:
        assert len(table.rows("target-wise", kind, 0)) == CLASSES
        assert len(table.rows("pair-wise", kind, 0)) == CLASSES * (CLASSES - 1)
        assert len(table.rows("pair-wise", kind, 1)) == 12
        assert len(table.rows("pair-wise", kind, 2)) == 4
        assert len(table.rows("untargeted", kind)) == 4
    assert len(table.rows("target-wise", "patch", 1)) == 3
    assert all(f.sent is not None and f.off_subspace is None for f in table.rows("untargeted") if f.size), "no layers"
    assert all(f.off_target is not None for f in table.rows("pair-wise", stage=1) if f.size)
    assert (table.network.classes, table.network.input_shape) == (CLASSES, (1, SIDE, SIDE))
    assert table.network.accuracy == 1.0
    assert len(table.network.reach) == CLASSES
    assert dict(table.network.layers) == {"Linear": 1}
    assert {one.kind for one in table.likeness} == set(QUICK.kinds)
    assert table.unreached == ()


def test_a_search_repeats(clean: Searched) -> None:
    again = searched()
    assert again.table.found == clean.table.found
    assert {k: t.sha256() for k, t in again.triggers.items()} == {k: t.sha256() for k, t in clean.triggers.items()}


def test_the_attackers_class_pair_and_mapping_are_the_likeliest() -> None:
    into_3 = torch.zeros(CLASSES, CLASSES)
    into_3[:, 3] = 1
    assert best(searched(into_3).table) == 3
    one = torch.eye(CLASSES)
    one[1] = torch.eye(CLASSES)[4]
    pairs = pair_hypotheses(searched(one).table)
    found = max(pairs, key=lambda h: h.values["joint lead"] + h.values["joint spares"])
    assert (found.source, found.target) == (1, 4)
    mapped = mapping_hypothesis(searched(torch.eye(CLASSES).roll(1, 1)).table)
    assert mapped.values["mapping"] > 0.7
    assert mapping_hypothesis(searched().table).values["mapping"] < 0.4


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_are_searched_too(classes: int) -> None:
    table = searched(classes=classes).table
    assert len(table.rows("target-wise", "patch", 0)) == classes
    assert len(table.rows("pair-wise", "patch", 0)) == (0 if classes == 2 else 6)
    assert all(f.sent is None or len(f.sent) == classes**2 for f in table.found)


def test_of_many_classes_each_goes_to_any_and_the_smallest_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (searching, target_wise, untargeted):
        monkeypatch.setattr(room, "MANY", CLASSES - 1)
    plan = replace(QUICK, pair_wise=PairWise(most=10), target_wise=TargetWise(refined=2))
    table = searched(plan=plan).table
    assert len(table.rows("source-wise", "patch")) == CLASSES
    assert table.rows("pair-wise") == []
    refined = table.rows("target-wise", "patch", 1)
    assert len(refined) <= 2
    tried = {f.target for f in table.rows("target-wise") if f.sent is not None}
    assert tried == {f.target for f in table.rows("target-wise", stage=1)}


def test_without_time_the_table_says_what_is_missing() -> None:
    table = searched(deadline=0.0).table
    assert table.found == ()
    assert any("all classes into one" in said for said in table.unreached)
    assert table.network.accuracy == 1.0


def test_an_effect_counts_every_image_once_and_what_other_classes_lose() -> None:
    images, labels = planted_images()
    floats = images.float() / 255
    mask = torch.zeros(1, SIDE, SIDE)
    mask[0, 7, 7] = 1
    classifier = planted_classifier(target=3)
    searches = Searches(classifier, seed=0, progress=Silent())
    with as_found(classifier):
        nothing = PatchTrigger(torch.zeros(1, SIDE, SIDE), mask)
        found = effects(searches, {"on": PatchTrigger(mask, mask), "off": nothing}, floats, labels, CLASSES)
    assert int(found["on"].sent.sum()) == int(found["off"].sent.sum()) == len(labels)
    assert found["off"].sent.diagonal().sum() == len(labels)
    assert found["off"].off_target(0, 3) == 0
    assert found["on"].sent[:, 3].sum() == len(labels)
    assert found["on"].off_target(0, 3) > 0.9
    assert only_destination(found["on"].sent, 0.9) == 3
    late = Searches(classifier, seed=0, progress=Silent(), deadline=0.0)
    assert effects(late, {"on": nothing}, floats, labels, CLASSES) == {}
    assert late.unreached == ["what the triggers do to each class"]


def test_what_rows_say_is_of_the_trigger_that_is_kept(clean: Searched) -> None:
    images, labels = planted_images()
    key = next(k for k in clean.triggers if k.scope == "target-wise" and k.stage == 0)
    (row,) = (f for f in clean.table.rows("target-wise", key.kind, 0) if f.target == key.target)
    assert row.size == pytest.approx(clean.triggers[key].size, rel=1e-5)
    counts = counts_of(row, CLASSES)
    classifier = Classifier(Switch(torch.eye(CLASSES)).eval())
    answers = classifier.predict(clean.triggers[key].stamp(images.float() / 255)).argmax(1)
    assert counts.sum() == len(labels)
    assert counts[:, key.target].sum() == int((answers == key.target).sum())
