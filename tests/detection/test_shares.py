"""Shares: kept, found again, and given up in time."""

from __future__ import annotations

import pytest
import torch

from planted import planted_classifier, planted_images
from untrojan.classifier import as_found
from untrojan.detection.inversion import Budget, Problem
from untrojan.detection.patch import PatchFamily
from untrojan.detection.shares import Searches
from untrojan.progress import Silent
from untrojan.triggers import PatchTrigger

BUDGET = Budget(steps=15, images=8, batch=16)


class Memory:
    """Keeps shares in a dictionary, and counts."""

    def __init__(self):
        self.kept, self.loaded = {}, []

    def load(self, name):
        if name in self.kept:
            self.loaded.append(name)
        return self.kept.get(name)

    def save(self, name, found):
        self.kept[name] = list(found)


def problems():
    images, labels = planted_images(8)
    return {s: Problem(images[labels == s].float() / 255, 3) for s in (0, 1, 2, 4)}


def run(store=None, deadline=None, seed=0):
    classifier = planted_classifier()
    with as_found(classifier):
        searches = Searches(classifier, seed=seed, progress=Silent(), store=store, deadline=deadline)
        return searches, searches.run("each pair", PatchFamily(), problems(), BUDGET)


def sizes(found):
    return {key: inversion.size for key, inversion in found.items()}


def test_kept_shares_are_not_searched_again_and_change_nothing():
    store = Memory()
    _, whole = run(store)
    assert len(store.kept) == 2, "two of four problems share a batch"
    first = next(iter(store.kept))
    half = Memory()
    half.kept = {first: store.kept[first]}
    _, again = run(half)
    assert half.loaded == [first]
    assert sizes(again) == sizes(whole) == sizes(run()[1])


def test_the_order_of_the_shares_does_not_matter():
    store = Memory()
    run(store)
    last = list(store.kept)[-1]
    half = Memory()
    half.kept = {last: store.kept[last]}
    assert sizes(run(half)[1]) == sizes(run()[1])


def test_the_seed_matters():
    assert sizes(run(seed=1)[1]) != sizes(run()[1])


def test_a_deadline_leaves_out_and_says_so():
    store = Memory()
    searches, found = run(store, deadline=0.0)
    assert found == {}
    assert store.kept == {}
    assert searches.unreached == ["patch triggers: each pair (4 of 4)"]


def test_chosen_images_depend_on_name_and_seed_alone():
    searches, _ = run()
    assert torch.equal(searches.choose("a", 50, 10), searches.choose("a", 50, 10))
    assert not torch.equal(searches.choose("a", 50, 10), searches.choose("b", 50, 10))
    assert len(searches.choose("a", 3, 10)) == 3


@pytest.mark.parametrize("damage", [[], None])
def test_a_share_that_does_not_fit_is_searched_again(damage):
    store = Memory()
    run(store)
    store.kept = dict.fromkeys(store.kept, damage)
    assert sizes(run(store)[1]) == sizes(run()[1])


def test_shares_of_other_starts_are_others():
    """A scan that had less time follows other triggers under the same name."""
    store = Memory()
    run(store)
    trigger = PatchTrigger(torch.full((1, 8, 8), 0.4), torch.full((1, 8, 8), 0.9))
    other = {key: Problem(p.images, p.target, start=trigger) for key, p in problems().items()}
    classifier = planted_classifier()
    store.loaded = []
    with as_found(classifier):
        searches = Searches(classifier, seed=0, progress=Silent(), store=store)
        searches.run("each pair", PatchFamily(), other, BUDGET)
    assert store.loaded == []
