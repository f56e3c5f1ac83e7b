"""Where a trigger for all classes sends each of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from planted import CLASSES, planted_classifier, planted_images, planted_trigger
from untrojan.detection import mapping
from untrojan.detection.inversion import Inversion
from untrojan.detection.mapping import destinations, information, only_destination
from untrojan.detection.shares import Searches
from untrojan.progress import Silent
from untrojan.triggers import PatchTrigger, Trigger


def searches(deadline: float | None = None) -> Searches:
    return Searches(planted_classifier(), seed=0, progress=Silent(), deadline=deadline)


def found(trigger: Trigger | None) -> Inversion:
    return Inversion(trigger, None if trigger is None else 1.0, 1.0, 1)


def images() -> tuple[Tensor, Tensor]:
    grey, labels = planted_images()
    return grey.float() / 255, labels


class NextRow(Trigger):
    """What an all-to-all attack's trigger does to the planted network, without a backdoor: rows move by one."""

    kind = "next row"

    def apply(self, given: Tensor) -> Tensor:
        moved = given.clone()
        moved[..., :CLASSES, :] = given[..., :CLASSES, :].roll(1, dims=-2)
        return moved

    def tensors(self) -> dict[str, Tensor]:
        return {}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 1, 8, 8

    @property
    def size(self) -> float:
        return 1.0


def test_each_class_to_one_of_its_own_says_all_and_all_to_one_says_nothing() -> None:
    sent = destinations(searches(), {0: found(planted_trigger()), 2: found(NextRow())}, *images(), CLASSES)
    assert information(sent[0]) == 0
    assert information(sent[2]) == pytest.approx(math.log(CLASSES), abs=0.1)
    assert only_destination(sent[0], 0.9) is not None
    assert only_destination(sent[2], 0.9) is None


def test_the_only_destination_is_where_the_share_goes_at_least() -> None:
    counts = torch.tensor([[0, 1, 8], [0, 0, 1], [0, 0, 0]])
    assert only_destination(counts, 0.9) == 2
    assert only_destination(counts, 0.91) is None
    assert only_destination(torch.zeros(3, 3, dtype=torch.int64), 0.0) is None, "what moves nothing sends nothing"


def test_rows_are_where_images_are_from_and_columns_where_they_go() -> None:
    counts = destinations(searches(), {0: found(NextRow())}, *images(), CLASSES)[0]
    assert torch.equal(counts > 0, torch.eye(CLASSES).roll(1, 1) > 0)


def test_no_trigger_no_time_nothing_moved() -> None:
    nothing = PatchTrigger(torch.zeros(1, 8, 8), torch.zeros(1, 8, 8))
    stays = destinations(searches(), {0: found(nothing)}, *images(), CLASSES)[0]
    assert int(stays.sum()) == 0, "what stays says nothing"
    assert information(stays) == 0
    assert destinations(searches(), {0: found(None)}, *images(), CLASSES) == {}
    late = searches(deadline=0.001)
    time.sleep(0.01)
    assert destinations(late, {0: found(NextRow())}, *images(), CLASSES) == {}
    assert late.unreached
    floats, labels = images()
    own = labels == 3
    one = destinations(searches(), {0: found(planted_trigger())}, floats[own], labels[own], CLASSES)[0]
    assert information(one) == 0


def test_no_more_images_are_tried_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "MOST", 20)
    run = searches()
    passed: list[int] = []
    predict: Callable[[Tensor], Tensor] = run.classifier.predict

    def counted(given: Tensor) -> Tensor:
        passed.append(len(given))
        return predict(given)

    monkeypatch.setattr(run.classifier, "predict", counted)
    first = destinations(run, {0: found(NextRow())}, *images(), CLASSES)[0]
    assert passed == [20]
    again = destinations(searches(), {0: found(NextRow())}, *images(), CLASSES)[0]
    assert torch.equal(first, again), "the same ones each time"


@given(st.integers(2, 8), st.integers(0, 1000))
def test_information_lies_between_nothing_and_that_of_the_rows(classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    table = torch.randint(0, 9, (classes, classes), generator=generator)
    assert 0 <= information(table) <= math.log(classes) + 1e-9
    assert information(table) == pytest.approx(information(table[torch.randperm(classes, generator=generator)]))
    assert information(table) == pytest.approx(information(table.T))


def test_of_few_counts_chance_is_taken_off() -> None:
    """Thirty images that go anywhere: their plain mutual information is .5 or more."""
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(50):
        cells = torch.randint(0, 25, (30,), generator=generator)
        values.append(information(torch.bincount(cells, minlength=25).view(5, 5)))
    assert sum(values) / len(values) < 0.2
    assert information(torch.zeros(3, 3)) == 0
