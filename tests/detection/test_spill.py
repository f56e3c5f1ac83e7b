"""What a pair's trigger does to images of other classes, and that a pair which spares them stands out."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch

from planted import CLASSES, planted_classifier, planted_images, planted_trigger
from untrojan.detection import spill as spilling
from untrojan.detection.inversion import Inversion
from untrojan.detection.pair_values import (
    ALIKE_BACK,
    ALIKE_MARGIN,
    LEAST_SPILL,
    LET_EXPECT,
    SPILL_POWER,
    likenesses,
    refined_values,
    single_values,
)
from untrojan.detection.results import KindResults
from untrojan.detection.shares import Searches
from untrojan.detection.spill import spill, spills
from untrojan.progress import Silent
from untrojan.triggers import PatchTrigger, Trigger


def searches(deadline: float | None = None) -> Searches:
    return Searches(planted_classifier(), seed=0, progress=Silent(), deadline=deadline)


def found(trigger: Trigger | None) -> Inversion:
    return Inversion(trigger, None if trigger is None else 1.0, 1.0, 1)


def images() -> tuple[torch.Tensor, torch.Tensor]:
    grey, labels = planted_images()
    return grey.float() / 255, labels


def nothing() -> PatchTrigger:
    return PatchTrigger(torch.zeros(1, 8, 8), torch.zeros(1, 8, 8))


def test_a_trigger_for_all_classes_spills_and_an_empty_one_does_not() -> None:
    measured = spills(searches(), {(0, 3): found(planted_trigger()), (1, 2): found(nothing())}, *images())
    assert measured[0, 3] > 0.9, "images of every class go to class 3"
    assert measured[1, 2] == pytest.approx(0, abs=1e-6)


def test_neither_the_source_nor_the_target_counts() -> None:
    floats, labels = images()
    own = (labels == 0) | (labels == 3)
    assert spills(searches(), {(0, 3): found(planted_trigger())}, floats[own], labels[own]) == {}
    one_more = own | (labels == 4)
    only = spills(searches(), {(0, 3): found(planted_trigger())}, floats[one_more], labels[one_more])
    alone = spills(searches(), {(0, 3): found(planted_trigger())}, floats[labels == 4], labels[labels == 4])
    assert only == pytest.approx(alone)


def test_a_gain_does_not_make_up_for_a_loss() -> None:
    before, after = torch.tensor([0.9, 0.2]), torch.tensor([0.1, 1.0])
    assert spill(before, after) == pytest.approx(0.4)
    assert spill(after, after) == 0


def test_no_more_images_are_tried_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spilling, "MOST", 20)
    run = searches()
    passed: list[int] = []
    predict = run.classifier.predict

    def counted(given: torch.Tensor) -> torch.Tensor:
        passed.append(len(given))
        return predict(given)

    monkeypatch.setattr(run.classifier, "predict", counted)
    measured = spills(run, {(0, 3): found(planted_trigger())}, *images())
    assert passed[0] == 20
    assert sum(passed[1:]) < 20
    assert measured == spills(searches(), {(0, 3): found(planted_trigger())}, *images()), "the same ones each time"


def test_pairs_without_a_trigger_and_after_the_deadline() -> None:
    assert spills(searches(), {(0, 3): found(None)}, *images()) == {}
    late = searches(deadline=0.001)
    time.sleep(0.01)
    assert spills(late, {(0, 3): found(planted_trigger())}, *images()) == {}
    assert late.unreached


def refined(spilt: dict[tuple[int, int], float]) -> KindResults:
    """All refined pairs are about as small, and spill so much."""
    sizes = np.random.default_rng(0).normal(3, 0.05, size=(CLASSES, CLASSES))
    pairs = {
        (s, t): Inversion(None, math.exp(sizes[s, t]), 1.0, 1) for s in range(CLASSES) for t in range(CLASSES) if s != t
    }
    return KindResults(pairs=pairs, refined={pair: pairs[pair] for pair in spilt}, spills=spilt)


FLAT = np.zeros((CLASSES, CLASSES))


def test_the_pair_that_spares_the_others_stands_out() -> None:
    usual = {(0, 1): 0.1, (1, 2): 0.1, (2, 3): 0.1, (3, 4): 0.1}
    values = single_values(refined(usual | {(4, 0): 0.001}), FLAT)
    assert max(values, key=lambda pair: values[pair]) == (4, 0)
    assert values[4, 0] == pytest.approx(SPILL_POWER * math.log((0.1 + LEAST_SPILL) / (0.001 + LEAST_SPILL)), abs=0.25)
    assert max(value for pair, value in values.items() if pair != (4, 0)) < 0.25


def test_a_pair_stands_out_less_where_its_classes_look_alike() -> None:
    """By the trigger for the way back, or by the margin from one to the other; that others are closer adds nothing."""
    spilt = {(0, 1): 0.1, (1, 2): 0.1, (2, 3): 0.1, (3, 4): 0.1, (4, 0): 0.001}
    result = refined(spilt)
    before = single_values(result, FLAT)[4, 0]
    as_it_was = result.pairs[0, 4].size
    assert as_it_was is not None
    result.pairs[0, 4] = Inversion(None, as_it_was / 8, 1.0, 1)
    assert before - single_values(result, FLAT)[4, 0] == pytest.approx(ALIKE_BACK * math.log(8), abs=0.25)
    margins = FLAT.copy()
    margins[4, 0] = -1.0
    assert likenesses({}, margins) == {}
    alike = likenesses(refined(spilt).pairs, margins)
    assert alike[4, 0] == pytest.approx(ALIKE_MARGIN, abs=0.25)
    assert all(0 <= value < 0.25 for pair, value in alike.items() if pair not in {(4, 0), (0, 4)})


def test_where_the_way_back_was_not_searched_the_margin_alone_tells_of_likeness() -> None:
    pair = {(4, 0): Inversion(None, 1.0, 1.0, 1)}
    margins = FLAT.copy()
    margins[4, 0] = -1.0
    assert likenesses(pair, margins) == {(4, 0): pytest.approx(ALIKE_MARGIN)}
    margins[4, 0] = np.nan
    assert likenesses(pair, margins) == {(4, 0): 0.0}


def test_what_its_classes_let_expect_counts_by_half() -> None:
    """All pairs into one class are as much smaller than others."""
    result = refined(dict.fromkeys([(0, 1), (1, 2), (2, 3), (4, 0)], 0.1))
    for pair, found in result.pairs.items():
        assert found.size is not None
        if pair[1] == 0:
            result.pairs[pair] = Inversion(None, found.size / 8, 1.0, 1)
    result.refined = {pair: result.pairs[pair] for pair in result.refined}
    assert refined_values(result, FLAT)[4, 0] == pytest.approx(0.0, abs=0.1)
    assert single_values(result, FLAT)[4, 0] == pytest.approx((1 - LET_EXPECT) * math.log(8), abs=0.1)
    assert LET_EXPECT == 0.5


def test_two_pairs_may_stand_out_and_four_may_not() -> None:
    usual = {(0, 1): 0.1, (1, 2): 0.1, (2, 3): 0.1}
    two = single_values(refined(usual | {(3, 4): 0.001, (4, 0): 0.001}), FLAT)
    assert min(two[3, 4], two[4, 0]) > 0.7, "two thirds of what one alone would be"
    four = single_values(refined(usual | dict.fromkeys([(3, 4), (4, 0), (2, 0), (3, 0)], 0.001)), FLAT)
    assert max(four.values()) < 0.25


def test_where_all_spare_the_others_none_is_odd() -> None:
    """A network that is sure of all its answers."""
    spilt = {(s, t): 1e-6 for s in range(CLASSES) for t in range(CLASSES) if s != t}
    assert max(single_values(refined(spilt), FLAT).values()) < 0.25


def test_few_pairs_have_nothing_to_stand_out_from() -> None:
    assert single_values(refined({(0, 1): 0.001, (1, 2): 0.1, (2, 3): 0.1}), FLAT) == {}
    some = refined({(0, 1): 0.001, (1, 2): 0.1, (2, 3): 0.1, (3, 4): 0.1})
    del some.spills[1, 2]
    assert single_values(some, FLAT) == {}, "a pair that was not tried"
    assert set(refined_values(some, FLAT)) == {(0, 1), (1, 2), (2, 3), (3, 4)}


def test_a_pair_that_was_searched_on_counts_as_it_ended() -> None:
    usual = {(0, 1): 0.1, (1, 2): 0.1, (2, 3): 0.1, (3, 4): 0.1}
    result = refined(usual | {(4, 0): 0.001})
    before, size = single_values(result, FLAT)[4, 0], result.refined[4, 0].size
    assert size is not None
    result.singled = {(4, 0): Inversion(None, size / 2, 1.0, 1), (0, 1): Inversion(None, None, 0.1, 1)}
    assert single_values(result, FLAT)[4, 0] == pytest.approx(before + math.log(2))
    assert result.latest[4, 0].size == size / 2
    assert result.latest[0, 1] == result.refined[0, 1], "the second search found nothing"
    result.spills[4, 0] = 0.1
    assert single_values(result, FLAT)[4, 0] < 1, "what it ended as moves other classes about"
