"""The statistics of other papers' detectors, against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import expon, median_abs_deviation

from untrojan.detection.max_margin import largest_p_value
from untrojan.detection.neural_cleanse import anomaly_index

SOME = st.lists(st.floats(0.1, 1e3), min_size=3, max_size=40, unique=True)


@given(SOME)
def test_the_p_value_of_the_largest_margin_is_that_of_scipy(margins: list[float]) -> None:
    ordered = sorted(margins)
    location, scale = expon.fit(ordered[:-1])
    expected = 1 - expon.cdf(ordered[-1], location, scale) ** len(margins)
    assert largest_p_value(margins) == pytest.approx(expected, abs=1e-9)


def test_margins_that_coincide_are_not_odd() -> None:
    assert largest_p_value([2.0, 2.0, 2.0]) == 1.0
    assert largest_p_value([2.0, 2.0, 3.0]) == 0.0
    assert largest_p_value([2.0, 9.0]) == 1.0, "two classes leave nothing to fit"


@given(SOME)
def test_the_anomaly_index_is_that_of_scipy(sizes: list[float]) -> None:
    spread = max(median_abs_deviation(sizes, scale=1 / 1.4826), 1e-12)
    assert anomaly_index(sizes) == pytest.approx((np.median(sizes) - np.array(sizes)) / spread)
