from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from untrojan.evaluation.metrics import agreement, share

flags = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30)
labels = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=30)


@settings(deadline=None)
@given(flags)
def test_a_share_counts_those_that_are_meant(rows: list[tuple[bool, bool]]) -> None:
    condition, among = (torch.tensor([row[i] for row in rows], dtype=torch.bool) for i in (0, 1))
    assert share(condition) == (sum(hit for hit, _ in rows), len(rows))
    assert share(condition, among) == (sum(hit and meant for hit, meant in rows), sum(meant for _, meant in rows))


@settings(deadline=None)
@given(labels)
def test_agreement_counts_equal_labels(rows: list[tuple[int, int]]) -> None:
    said, wanted = (torch.tensor([row[i] for row in rows], dtype=torch.int64) for i in (0, 1))
    hits, count = agreement(said, wanted)
    assert (hits, count) == (sum(a == b for a, b in rows), len(rows))
    assert type(hits) is int
    assert type(count) is int
