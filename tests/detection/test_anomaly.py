from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy.stats import median_abs_deviation

from untrojan.detection.anomaly import (
    FEW,
    USUAL_LEAD,
    anomaly_scores,
    below_the_others,
    below_the_smallest,
    below_two_way_fit,
    in_effect,
    log_sizes,
    oddest,
    second_of_ten,
    smallest,
    usual,
    usual_gap,
)

samples = arrays.arrays(np.float64, st.integers(1, 40), elements=st.just(0.0) | st.floats(0.001, 100))


def by_definition(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return (values - np.median(values)) / median_abs_deviation(values)


@pytest.mark.parametrize("size", [3, 4, 20, 90, 9900])
def test_scores_are_deviations_in_units_of_the_mad(size: int) -> None:
    for seed in range(10):
        values = np.random.default_rng(seed).lognormal(size=size)
        np.testing.assert_allclose(anomaly_scores(values), by_definition(values), rtol=1e-12, atol=1e-12)


@settings(deadline=None)
@given(samples)
def test_any_sample_gives_finite_scores_in_the_order_of_the_statistics(values: NDArray[np.float64]) -> None:
    scores = anomaly_scores(values)
    assert np.isfinite(scores).all()
    assert scores.dtype == np.float64
    assert scores.shape == values.shape
    assert (np.diff(scores[np.argsort(values)]) >= 0).all()
    centre = np.median(values)
    if median_abs_deviation(values) > 0.01 * centre:
        np.testing.assert_allclose(scores, by_definition(values), rtol=1e-9, atol=1e-9)
    elif centre > 0:
        np.testing.assert_allclose(scores, 100 * (values / centre - 1), rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(samples, st.floats(0.01, 100))
def test_units_do_not_matter(values: NDArray[np.float64], factor: float) -> None:
    np.testing.assert_allclose(anomaly_scores(values * factor), anomaly_scores(values), rtol=1e-6, atol=1e-6)


def test_a_list_and_the_sign() -> None:
    assert anomaly_scores([1.0, 2.0, 3.0, 4.0, 14.0]).tolist() == [-2, -1, 0, 1, 11]


def test_statistics_that_coincide_have_no_infinite_outliers() -> None:
    """More than half are equal, so that the MAD is 0: one hundredth of the median stands in."""
    assert anomaly_scores([2.0] * 9 + [2.02]).tolist() == pytest.approx([0] * 9 + [1])
    assert anomaly_scores([2.0] * 9 + [4.0])[-1] == pytest.approx(100)
    assert anomaly_scores([2.0] * 9 + [0.0])[-1] == pytest.approx(-100)


def test_all_equal_is_no_anomaly() -> None:
    for value in (0.0, 3.7):
        assert anomaly_scores([value] * 6).tolist() == [0] * 6


def test_two_classes_never_give_a_detection() -> None:
    for one, other in [(1.0, 1e9), (0.0, 5.0), (3.0, 3.0), (1.0, 1.001)]:
        assert np.abs(anomaly_scores([one, other])).max() <= 1 + 1e-12


def test_nothing_and_one() -> None:
    assert anomaly_scores([]).shape == (0,)
    assert anomaly_scores([5.0]).tolist() == [0]


@pytest.mark.parametrize("classes", [6, 10])
def test_a_third_of_outliers_is_still_found(classes: int) -> None:
    """The median and the MAD stand until half of the pairs are the attacker's."""
    rng = np.random.default_rng(classes)
    pairs = classes * (classes - 1)
    statistics = rng.normal(1, 0.1, size=pairs)
    outliers = rng.permutation(pairs)[: pairs // 3]
    statistics[outliers] += 5
    scores = anomaly_scores(statistics)
    ordinary = np.delete(scores, outliers)
    assert scores[outliers].min() > 15
    assert np.abs(ordinary).max() < 7


def test_where_nothing_was_found_the_largest_size_stands_in() -> None:
    assert log_sizes([1.0, None, 4.0]).tolist() == pytest.approx([0.0, np.log(4), np.log(4)])
    assert np.isnan(log_sizes([None, None])).all()


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12))
def test_each_is_compared_with_the_others(values: list[float]) -> None:
    logs = np.array(values)
    usual = min if len(values) <= 5 else np.median
    expected = [usual(values[:i] + values[i + 1 :]) - v for i, v in enumerate(values)]
    np.testing.assert_allclose(below_the_others(logs), expected, atol=1e-12)


def test_what_is_usual_depends_on_how_many_there_are() -> None:
    assert usual(np.arange(4.0)) == 0.0
    assert usual(np.arange(9.0)) == 4.0
    assert usual(np.arange(41.0), many=True) == 4.0


def test_of_one_nothing_is_known() -> None:
    assert below_the_others(np.array([1.0])).tolist() == [0.0]


@given(st.integers(0, 30), st.integers(5, 12))
def test_rows_and_columns_are_taken_out(seed: int, classes: int) -> None:
    """Additive effects vanish, and what was put on top of them comes back."""
    rng = np.random.default_rng(seed)
    logs = rng.normal(size=(classes, 1)) + rng.normal(size=(1, classes))
    np.fill_diagonal(logs, np.nan)
    odd = logs.copy()
    odd[1, 3] -= 2.0
    assert np.nanmax(np.abs(below_two_way_fit(logs))) < 1e-6
    values = below_two_way_fit(odd)
    assert values[1, 3] == pytest.approx(2.0, abs=0.7)
    assert np.nanargmax(values) == classes + 3
    assert np.isnan(np.diag(values)).all()


def test_one_odd_pair_in_every_row_and_column_is_seen() -> None:
    """As all-to-all attacks have them."""
    rng = np.random.default_rng(0)
    logs = rng.normal(3, 0.2, size=(10, 10))
    np.fill_diagonal(logs, np.nan)
    attacked = [(c, (c + 1) % 10) for c in range(10)]
    for pair in attacked:
        logs[pair] -= 1.5
    values = below_two_way_fit(logs)
    assert min(values[p] for p in attacked) > 2 * np.nanmax(
        np.delete(values.ravel(), [10 * s + t for s, t in attacked])
    )


def test_few_classes_leave_nothing_to_fit() -> None:
    assert not below_two_way_fit(np.zeros((4, 4))).any()


@pytest.mark.parametrize("count", [10, 43, 100, 200])
def test_as_many_in_effect_give_as_large_a_largest_value(count: int) -> None:
    """Where the small sizes thin out exponentially, whatever the large ones do."""
    rng = np.random.default_rng(0)
    ten = [below_the_others(rng.exponential(size=10) * -1).max() for _ in range(2000)]
    many = [below_the_others(rng.exponential(size=count) * -1).max() for _ in range(300)]
    shift = np.log(in_effect(count) / 10)
    assert np.quantile(many, 0.9) == pytest.approx(np.quantile(ten, 0.9) + shift, abs=0.5)


pairs = st.tuples(st.integers(0, 4), st.integers(0, 4))
kinds = st.lists(st.dictionaries(pairs, st.floats(-5, 5)), max_size=3)


@given(kinds, st.integers(0, 12))
def test_the_oddest_are_the_best_of_every_kind(values: list[dict[tuple[int, int], float]], count: int) -> None:
    chosen = oddest(values, count)
    every = {pair for kind in values for pair in kind}
    assert len(chosen) == len(set(chosen)) == min(count, len(every))
    for kind in values:
        share = count // max(1, len(values))
        assert set(sorted(kind, key=lambda p: -kind[p])[:share]) <= set(chosen), "an equal share at least"


def test_one_more_class_than_is_many_is_compared_as_many_are() -> None:
    for count, reference in ((20, 10.0), (21, 2.9), (22, 3.0)):
        logs = np.arange(count, dtype=np.float64)
        assert below_the_others(logs)[0] == pytest.approx(reference)


@given(arrays.arrays(np.float64, st.integers(2, 12), elements=st.floats(-5, 5)), st.randoms(use_true_random=False))
def test_the_smallest_bears_any_order_and_moves_along(logs: NDArray[np.float64], random: Random) -> None:
    """It is one of the values or less than the smallest but one by an allowance, and no smaller than the smallest."""
    shuffled = logs.tolist()
    random.shuffle(shuffled)
    least = smallest(logs)
    assert smallest(np.array(shuffled)) == least
    assert smallest(logs + 1) == pytest.approx(least + 1)
    assert least >= logs.min()
    if logs.size < FEW or np.diff(np.sort(logs)).max() <= USUAL_LEAD:
        assert least == logs.min()
    others = [smallest(np.delete(logs, i)) - x for i, x in enumerate(logs)]
    assert below_the_smallest(logs) == pytest.approx(others)


def test_values_far_below_the_others_count_as_no_more_than_a_usual_lead() -> None:
    """Up to half of them."""
    honest = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
    for far in ([-3.0], [-3.0, -4.0], [-3.0, -4.0, -5.0]):
        assert smallest(np.array(far + honest)) == pytest.approx(1.0 - USUAL_LEAD * len(far))
    assert smallest(np.array([-3.0, 1.0, 1.1])) == -3.0, "of few there may be no others"
    assert below_the_smallest(np.array([2.0])).tolist() == [0.0]


@pytest.mark.parametrize(("count", "gap"), [(3, 0.846), (5, 0.668), (10, 0.537), (20, 0.459)])
def test_the_usual_gap_is_that_of_normal_values(count: int, gap: float) -> None:
    """Expected order statistics, as tabulated, to within the approximation."""
    assert usual_gap(count) == pytest.approx(gap / 0.537, rel=0.05)


@given(arrays.arrays(np.float64, st.integers(2, 20), elements=st.floats(-5, 5)))
def test_the_second_of_ten_lies_among_the_values_and_moves_with_them(logs: NDArray[np.float64]) -> None:
    ordered = np.sort(logs)
    assert ordered[0] <= second_of_ten(logs) <= ordered[-1]
    assert second_of_ten(logs[::-1] + 1) == pytest.approx(second_of_ten(logs) + 1)
    if logs.size == 10:
        assert second_of_ten(logs) == ordered[1]


@pytest.mark.parametrize("count", [4, 5, 6, 8, 15, 20])
def test_it_is_as_low_among_fewer_or_more_normal_values(count: int) -> None:
    rows = np.random.default_rng(count).normal(size=(4000, count))
    assert np.mean([second_of_ten(row) for row in rows]) == pytest.approx(-1.001, abs=0.04), "E of the second of ten"
