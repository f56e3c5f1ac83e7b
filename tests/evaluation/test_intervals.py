from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from untrojan.errors import UsageError
from untrojan.intervals import wilson


@settings(deadline=None, max_examples=300)
@given(st.data(), st.integers(1, 20_000), st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99]))
def test_it_is_what_scipy_says(data: st.DataObject, count: int, level: float) -> None:
    successes = data.draw(st.integers(0, count))
    rate = wilson(successes, count, level)
    wanted = binomtest(successes, count).proportion_ci(level, method="wilson")
    assert rate is not None
    assert rate.value == successes / count
    assert rate.low == pytest.approx(wanted.low, abs=1e-9)
    assert rate.high == pytest.approx(wanted.high, abs=1e-9)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1


@pytest.mark.parametrize("count", [1, 2, 3, 10, 5000, 10**9])
def test_none_and_all(count: int) -> None:
    none, every = wilson(0, count), wilson(count, count)
    assert none is not None
    assert every is not None
    assert (none.value, none.low, every.value, every.high) == (0, 0, 1, 1)
    assert none.high == pytest.approx(binomtest(0, count).proportion_ci(method="wilson").high, abs=1e-12)
    assert every.low == pytest.approx(1 - none.high, abs=1e-12)


def test_a_known_value() -> None:
    rate = wilson(8, 10)
    assert rate is not None
    assert (rate.low, rate.high) == pytest.approx((0.49016, 0.94332), abs=1e-5)


def test_nothing_counted_is_nothing_measured() -> None:
    assert wilson(0, 0) is None


@pytest.mark.parametrize(("successes", "count"), [(-1, 5), (6, 5), (1, 0), (0, -1)])
def test_what_is_no_share(successes: int, count: int) -> None:
    with pytest.raises(UsageError, match=f"{successes} successes of {count} is not a share"):
        wilson(successes, count)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, -0.5, float("nan")])
def test_levels_that_are_none(level: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        wilson(1, 2, level)
