"""The statistic and the rule that turn sizes into detected pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from untrojan.detection.anomaly import Thresholds, anomaly_scores, judge, statistics_of

PAIRS = [(s, t) for t in range(10) for s in range(10) if s != t]
RULE = Thresholds()


def honest_sizes(seed: int) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(3.0, 0.25, len(PAIRS)))


def detected(sizes: np.ndarray, margins: np.ndarray | None = None, linked: set[tuple[int, int]] | None = None) -> set:
    margins = np.ones(len(sizes)) if margins is None else margins
    scores = anomaly_scores(statistics_of(list(sizes), margins, RULE.margin_power))
    return {pair for pair, hit in zip(PAIRS, judge(PAIRS, scores, RULE, linked or set()), strict=True) if hit}


@pytest.mark.parametrize("seed", range(20))
def test_honest_sizes_are_not_detected(seed):
    assert detected(honest_sizes(seed)) == set()


def test_one_small_pair_is_detected_and_only_that():
    sizes = honest_sizes(0)
    sizes[PAIRS.index((2, 3))] = 1.5
    assert detected(sizes) == {(2, 3)}


def test_a_column_is_found_whose_pairs_are_not_extreme_alone():
    sizes = honest_sizes(1)
    for s in range(9):
        sizes[PAIRS.index((s, 9))] = np.exp(3.0) / 2.2
    assert max(anomaly_scores(1 / sizes)) < RULE.pair, "no pair stands out alone"
    assert detected(sizes) == {(s, 9) for s in range(9)}


def test_a_linked_pair_needs_less():
    sizes = honest_sizes(2)
    sizes[PAIRS.index((4, 5))] = np.exp(3.0) / 2.2
    assert detected(sizes) == set()
    assert detected(sizes, linked={(4, 5)}) == {(4, 5)}
    assert (6, 7) not in detected(sizes, linked={(6, 7)}), "a link alone is no evidence"


def test_classes_that_look_alike_are_not_anomalous():
    sizes, margins = honest_sizes(3), np.full(len(PAIRS), 10.0)
    alike = PAIRS.index((9, 1))
    sizes[alike], margins[alike] = np.exp(3.0) / 5, 1.0
    assert detected(sizes) == {(9, 1)}
    assert detected(sizes, margins) == set()


def test_the_papers_statistic_is_margin_power_zero():
    assert statistics_of([2.0, None, 4.0], [1.0, 5.0, 9.0], 0.0) == pytest.approx([0.5, 0.0, 0.25])


def test_a_confused_class_does_not_reach_infinity():
    statistics = statistics_of([1.0, 1.0, 1.0], [10.0, 10.0, -3.0], 1.0)
    assert statistics == pytest.approx([10.0, 10.0, 1.0])


@given(st.floats(0.1, 100.0), st.integers(0, 50))
def test_units_do_not_matter(scale, seed):
    sizes = honest_sizes(seed)
    sizes[5] = 1.0
    assert detected(sizes * scale) == detected(sizes)


def test_a_third_of_the_pairs_may_be_outliers():
    sizes = honest_sizes(4)
    chosen = {(s, t) for s, t in PAIRS if t in (1, 4, 7)}
    for pair in chosen:
        sizes[PAIRS.index(pair)] = 0.4
    assert detected(sizes) == chosen


def test_two_classes_never_give_a_detection():
    pairs = [(0, 1), (1, 0)]
    scores = anomaly_scores(statistics_of([0.001, 100.0], [1.0, 1.0], 0.0))
    assert not judge(pairs, scores, RULE).any()
