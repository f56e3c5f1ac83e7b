"""Means over victims against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from untrojan.bench.statistics import mean_over_victims, t_quantile


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30, 119])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.975, 0.9999])
def test_the_quantile_of_students_t(freedom: int, level: float) -> None:
    assert t_quantile(level, freedom) == pytest.approx(stats.t.ppf(level, freedom), rel=1e-9, abs=1e-12)


def test_victims_are_the_samples() -> None:
    made = mean_over_victims({"a": [0.2, 0.4], "b": [0.5], "c": [0.35, 0.45, 0.4]})
    means = [0.3, 0.5, 0.4]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(means), scale=stats.sem(means))
    assert (made.value, made.low, made.high) == pytest.approx((0.4, low, high))
    assert made.victims == 3


def test_one_victim_has_no_interval_none_no_mean_and_shares_stay_shares() -> None:
    one = mean_over_victims({"a": [0.2, 0.4]})
    assert (one.value, one.low, one.high) == (pytest.approx(0.3), None, None)
    assert mean_over_victims({}) is None
    wide = mean_over_victims({"a": [0.0], "b": [1.0]})
    assert (wide.low, wide.high) == (0.0, 1.0)
    free = mean_over_victims({"a": [0.0], "b": [1.0]}, bounds=None)
    assert free.low < 0 < 1 < free.high
