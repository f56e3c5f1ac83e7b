from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from untrojan.data import balanced_sample, split_defence
from untrojan.errors import DataError, UsageError

label_lists = st.lists(st.integers(-1, 6), min_size=1, max_size=60)
seeds = st.integers(0, 2**63 - 1)


def counts(labels: torch.Tensor) -> dict[int, int]:
    values, numbers = labels.unique(return_counts=True)
    return dict(zip(values.tolist(), numbers.tolist(), strict=True))


def shares_by_hand(available: dict[int, int], limit: int) -> list[int]:
    """Hand out one image after the other to whichever class has received least and has some left."""
    shares = dict.fromkeys(available, 0)
    for _ in range(min(limit, sum(available.values()))):
        hungry = [c for c in available if shares[c] < available[c]]
        shares[min(hungry, key=lambda c: shares[c])] += 1
    return sorted(shares.values())


@settings(deadline=None)
@given(label_lists, st.integers(1, 80), seeds)
def test_shares_are_even_as_far_as_classes_allow(values, limit, seed):
    labels = torch.tensor(values)
    index = balanced_sample(labels, limit, seed)
    drawn = counts(labels[index])
    shares = sorted(drawn.get(c, 0) for c in counts(labels))
    assert shares == shares_by_hand(counts(labels), limit)
    assert index.tolist() == sorted(set(index.tolist()))


@settings(deadline=None)
@given(label_lists, st.integers(1, 60), st.integers(0, 20), seeds)
def test_a_smaller_draw_is_part_of_a_larger_one(values, limit, more, seed):
    labels = torch.tensor(values)
    small = balanced_sample(labels, limit, seed).tolist()
    assert set(small) <= set(balanced_sample(labels, limit + more, seed).tolist())


def test_the_draw_depends_on_the_seed_and_not_on_the_global_state():
    labels = torch.arange(1000) % 10
    state = torch.get_rng_state()
    first = balanced_sample(labels, 100, 1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(balanced_sample(labels, 100, 1), first)
    assert not torch.equal(balanced_sample(labels, 100, 2), first)


def test_images_within_a_class_are_drawn_at_random():
    labels = torch.zeros(100, dtype=torch.int64)
    hits = sum((balanced_sample(labels, 50, seed) < 50).sum().item() for seed in range(40))
    assert 850 < hits < 1150


def test_the_odd_image_goes_to_a_random_class():
    labels = torch.arange(40) % 4
    lucky = {labels[balanced_sample(labels, 1, seed)].item() for seed in range(60)}
    assert lucky == {0, 1, 2, 3}


@pytest.mark.parametrize("limit", [0, -3])
def test_a_senseless_limit_is_refused(limit):
    with pytest.raises(UsageError, match="at least 1"):
        balanced_sample(torch.tensor([0, 1]), limit, 0)


@pytest.mark.parametrize("seed", [-1, 2**63, 10**30])
def test_a_senseless_seed_is_refused(seed):
    with pytest.raises(UsageError, match="seed"):
        balanced_sample(torch.tensor([0, 1]), 1, seed)


def test_no_labels_give_no_indices():
    assert balanced_sample(torch.empty(0, dtype=torch.int64), 5, 0).tolist() == []


def test_the_defence_gets_its_share_of_each_class():
    labels = torch.arange(1000) % 10
    defence, test = split_defence(labels, 0.1, seed=3)
    assert counts(labels[defence]) == dict.fromkeys(range(10), 10)
    assert counts(labels[test]) == dict.fromkeys(range(10), 90)


@settings(deadline=None)
@given(label_lists, st.floats(0.01, 0.99), seeds)
def test_a_split_parts_all_images_and_keeps_each_class_in_the_test(values, fraction, seed):
    labels = torch.tensor(values)
    if max(counts(labels).values()) < 2:
        with pytest.raises(DataError, match="no class has two"):
            split_defence(labels, fraction, seed=seed)
        return
    defence, test = split_defence(labels, fraction, seed=seed)
    assert sorted(defence.tolist() + test.tolist()) == list(range(len(values)))
    assert len(defence) >= 1
    assert set(labels[test].tolist()) == set(values)


def test_a_rare_class_is_not_used_up():
    labels = torch.tensor([0] * 980 + [1] * 20)
    defence, test = split_defence(labels, 0.1, seed=0)
    assert counts(labels[defence]) == {0: 90, 1: 10}
    assert counts(labels[test]) == {0: 890, 1: 10}


@pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan")])
def test_a_senseless_fraction_is_refused(fraction):
    with pytest.raises(UsageError, match="between 0 and 1"):
        split_defence(torch.tensor([0, 1, 0, 1]), fraction, seed=0)
