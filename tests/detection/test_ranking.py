"""What a search goes on with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from untrojan.detection.inversion import Inversion
from untrojan.detection.ranking import below_expected, best_ranked, expected_sizes, log_sizes, singular


def sized(size: float | None) -> Inversion:
    return Inversion(None, size, 0.9, 10)


def additive(classes: int, seed: int, power: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """Log sizes that are a sum of row, column and margin, and the margins."""
    lot = np.random.default_rng(seed)
    margins = lot.normal(size=(classes, classes))
    logs = lot.normal(size=classes)[:, None] + lot.normal(size=classes)[None, :] + power * margins
    np.fill_diagonal(logs, np.nan)
    np.fill_diagonal(margins, np.nan)
    return logs, margins


@given(st.integers(5, 12), st.integers(0, 100))
def test_what_rows_columns_and_margins_explain_is_expected(classes: int, seed: int) -> None:
    logs, margins = additive(classes, seed)
    known = ~np.isnan(logs)
    assert expected_sizes(logs, margins)[known] == pytest.approx(logs[known], abs=0.02)


def test_a_pair_below_that_is_the_first() -> None:
    logs, margins = additive(8, 0)
    logs[2, 5] -= 2
    found = {(s, t): sized(float(np.exp(logs[s, t]))) for s in range(8) for t in range(8) if s != t}
    below = below_expected(found, margins)
    assert max(below, key=below.get) == (2, 5)
    assert below[2, 5] > 1 > max(v for pair, v in below.items() if pair != (2, 5))
    assert best_ranked([below], 1) == [(2, 5)]


def test_pairs_without_a_trigger_are_not_ranked_and_count_as_the_largest() -> None:
    found = {(0, 1): sized(2.0), (1, 0): sized(None), (0, 2): sized(8.0)}
    logs = log_sizes(found, 3)
    assert logs[1, 0] == logs[0, 2] == pytest.approx(np.log(8))
    assert np.isnan(logs[2, 0])
    assert (1, 0) not in below_expected(found, np.zeros((3, 3)))


def test_of_few_classes_the_margin_alone_is_expected() -> None:
    logs, margins = additive(3, 1)
    assert np.isfinite(expected_sizes(logs, margins)[~np.isnan(logs)]).all()


def test_sparing_other_classes_counts() -> None:
    found = {(0, 1): sized(1.0), (1, 2): sized(1.0), (2, 0): sized(1.0)}
    margins = np.zeros((3, 3))
    values = singular(found, found, {(0, 1): 0.0, (1, 2): 0.2, (2, 0): 0.2}, margins)
    assert max(values, key=values.get) == (0, 1)
    assert values[1, 2] == pytest.approx(values[2, 0])
    assert (2, 0) not in singular(found, found, {(0, 1): 0.1}, margins)
