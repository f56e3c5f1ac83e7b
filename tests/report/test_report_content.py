from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from report_examples import evaluation, guard, neuron, picture, scan, victim

from untrojan.errors import DataError, GuardMismatchError, ShapeError
from untrojan.report import NeuronHistogram, ReportContent


def test_pictures_check_their_images() -> None:
    with pytest.raises(ShapeError, match="uint8"):
        replace(picture(), clean=torch.zeros(2, 3, 8, 8))
    with pytest.raises(ShapeError, match="uint8"):
        replace(picture(), clean=torch.zeros(3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ShapeError, match="2 images, 1 labels"):
        replace(picture(), labels=(0,))


@pytest.mark.parametrize(
    "edges", [[], [1.0], [0.0, 0.0], [1.0, 0.0], [0.0, math.nan], [0.0, math.inf]], ids=lambda edges: str(edges)
)
def test_histograms_check_their_edges(edges: list[float]) -> None:
    with pytest.raises(DataError, match="edges"):
        NeuronHistogram("l", 0, edges, [1.0], [1.0])


def test_histograms_check_their_densities() -> None:
    with pytest.raises(DataError, match="expected 2 densities for 'corrected', got 1"):
        replace(neuron(), corrected=[1.0])
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(DataError, match="'triggered'"):
            replace(neuron(), triggered=[bad, 0.0])


def test_distance_is_the_total_variation() -> None:
    assert neuron().distance([0.0, 1.0]) == pytest.approx(0.75)
    assert neuron().distance([0.75, 0.25]) == 0
    assert NeuronHistogram("l", 0, [0, 2, 4], [0.5, 0.0], [0.0, 0.5]).distance([0.0, 0.5]) == pytest.approx(1.0)


@given(st.lists(st.floats(0.01, 10), min_size=3, max_size=3), st.lists(st.floats(0.01, 10), min_size=3, max_size=3))
def test_distance_of_densities_lies_between_0_and_1(p: list[float], q: list[float]) -> None:
    p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
    assert 0 <= NeuronHistogram("l", 0, [0, 1, 2, 3], p, q).distance(q) <= 1 + 1e-9


def test_records_of_different_victims_are_refused() -> None:
    other = victim().model_copy(update={"sha256": "00" * 32})
    with pytest.raises(GuardMismatchError, match="one victim"):
        ReportContent(scan=scan(), guard=guard(victim=other))
    assert ReportContent(scan=scan(), guard=guard(), evaluation=evaluation()).victim == victim()


def test_classes_that_the_victim_does_not_have_are_refused() -> None:
    with pytest.raises(DataError, match="class 9"):
        ReportContent(guard=guard(targets=(9,)))
    with pytest.raises(DataError, match="class -1"):
        ReportContent(scan=scan(targets=(-1,)))
    with pytest.raises(DataError, match="class 5"):
        ReportContent(scan=scan(), pictures=(replace(picture(), labels=(0, 5)),))
    few = scan().model_copy(update={"victim": victim(("a", "b"))})
    with pytest.raises(DataError, match="has 2 classes"):
        ReportContent(scan=few)


def test_without_records_there_is_no_victim() -> None:
    assert ReportContent().victim is None
