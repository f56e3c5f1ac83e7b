"""Features are of a network compared with itself: they know no unit, no order of classes and no other network."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_tables import KINDS, sent_into, sent_next, table
from untrojan.detection.features import (
    drawn,
    information,
    lead,
    mapping_hypothesis,
    pair_hypotheses,
    target_hypotheses,
    under,
    unlike,
)
from untrojan.detection.table import Found, Likeness, SearchTable


def rescaled(made: SearchTable, factor: float) -> SearchTable:
    """The same, in a network that needs triggers so many times as large."""
    found = tuple(dataclasses.replace(f, size=None if f.size is None else factor * f.size) for f in made.found)
    reach = tuple(factor * x for x in made.network.reach)
    return dataclasses.replace(made, found=found, network=dataclasses.replace(made.network, reach=reach))


@given(st.floats(0.02, 50), st.sampled_from([3, 5, 10]), st.integers(0, 50))
def test_a_network_that_is_harder_to_move_has_the_same_features(factor: float, classes: int, seed: int) -> None:
    made = table(classes, seed)
    harder = rescaled(made, factor)
    for read in (target_hypotheses, pair_hypotheses, lambda t: [mapping_hypothesis(t)]):
        for one, other in zip(read(made), read(harder), strict=True):
            assert (one.source, one.target) == (other.source, other.target)
            assert other.values == pytest.approx(one.values, abs=1e-6)


@given(st.permutations(range(6)), st.integers(0, 50))
def test_the_order_of_classes_says_nothing(order: list[int], seed: int) -> None:
    lot, back = np.random.default_rng(seed), [order.index(c) for c in range(6)]
    made = table(6, seed, target=2)
    kept = tuple(f for f in made.found if f.scope != "pair-wise")
    cosines, counts = lot.uniform(-1, 1, (6, 6)), lot.integers(0, 9, (6, 6))
    cosines[:, 4] = cosines[4] = np.nan

    def laid(rows: tuple[Found, ...], places: list[int]) -> SearchTable:
        sent = tuple(map(int, counts[np.ix_(places, places)].ravel()))
        rows = tuple(dataclasses.replace(f, sent=sent) if f.scope == "untargeted" else f for f in rows)
        alike = Likeness("patch", (0.0,) * 36, tuple(cosines[np.ix_(places, places)].ravel()))
        reach = tuple(made.network.reach[c] for c in places)
        network = dataclasses.replace(made.network, reach=reach)
        return dataclasses.replace(made, found=rows, likeness=(alike,), network=network)

    rows = tuple(dataclasses.replace(f, target=None if f.target is None else order[f.target]) for f in kept)
    plain = {h.target: h.values for h in target_hypotheses(laid(kept, list(range(6))))}
    assert {round(h["unlike"], 3) for h in plain.values()} != {0.0} != {round(h["drawn"], 3) for h in plain.values()}
    for h in target_hypotheses(laid(rows, back)):
        assert h.values == pytest.approx(plain[back[h.target]], abs=1e-9)


def test_the_attackers_class_stands_far_below_the_others() -> None:
    for classes in (3, 5, 10, 16):
        found = {h.target: h.values["joint lead"] for h in target_hypotheses(table(classes, target=1))}
        assert max(found, key=found.get) == 1
        assert found[1] > 0.8 > 0.4 > max(v for t, v in found.items() if t != 1)


def test_a_lead_counts_for_more_among_more_classes() -> None:
    """Since the smallest of many leads by less, if by chance."""
    made = table(5)
    among = [dataclasses.replace(made.network, classes=classes) for classes in (5, 25)]
    few, many = (
        target_hypotheses(dataclasses.replace(made, found=made.rows("target-wise"), likeness=(), network=network))
        for network in among
    )
    for name in ("joint lead", "clearest lead", "joint under"):
        assert [2 * h.values[name] for h in few] == pytest.approx([h.values[name] for h in many]), name


def test_untargeted_triggers_are_drawn_to_the_attackers_class() -> None:
    def sent(counts: list[int]) -> SearchTable:
        rows = tuple(
            dataclasses.replace(f, sent=tuple(counts)) if f.scope == "untargeted" and f.sent is not None else f
            for f in table(4, target=1).found
        )
        return dataclasses.replace(table(4), found=rows)

    attacked = drawn(sent(sent_into(4, range(4), 1)))
    assert attacked == pytest.approx({0: 0, 1: 1, 2: 0, 3: 0})
    assert drawn(sent(sent_next(4))) == pytest.approx(dict.fromkeys(range(4), 0.25))
    assert drawn(sent([int(i % 5 == 0) for i in range(16)])) == dict.fromkeys(range(4), 0.0)  # none is moved
    assert drawn(dataclasses.replace(table(4), found=())) == {}


def test_what_an_attacker_planted_is_unlike_the_other_classes_triggers() -> None:
    inside = np.full((5, 5), 0.6)
    inside[2, :] = inside[:, 2] = 0.1
    alike = Likeness("patch", (0.5,) * 25, tuple(inside.ravel()))
    nothing = Likeness("warp", (0.5,) * 25, (math.nan,) * 25)
    made = dataclasses.replace(table(5), likeness=(alike, nothing))
    found = unlike(made)
    assert max(found, key=found.get) == 2
    assert found[2] == pytest.approx(0.475 - 0.1)  # a kind of which nothing is known counts for nothing
    assert [found[t] for t in (0, 1, 3, 4)] == pytest.approx([0] * 4)
    assert unlike(dataclasses.replace(table(5), likeness=())) == {}
    inside[:3] = inside[:, :3] = math.nan  # of many classes only some have a trigger that was looked at
    some = dataclasses.replace(alike, inside=tuple(inside.ravel()))
    assert set(unlike(dataclasses.replace(made, likeness=(some,)))) == {3, 4}


def test_the_attackers_pair_is_small_spares_others_and_lies_outside() -> None:
    values = {(h.source, h.target): h.values for h in pair_hypotheses(table(pair=(3, 7)))}
    for name in ("joint lead", "joint unexpected", "joint spares", "joint outside", "joint alone"):
        assert max(values, key=lambda pair: values[pair][name]) == (3, 7), name


def test_a_mapping_sends_each_class_to_one_of_its_own() -> None:
    laid, into_one, clean = (mapping_hypothesis(t).values for t in (table(mapping=True), table(target=4), table()))
    assert laid["mapping"] > 0.8
    assert into_one["mapping"] < 0.1
    assert laid["joint under"] > 0.8 > 0.4 > clean["joint under"]


def test_each_is_compared_with_the_others_alone() -> None:
    values = {0: 0.0, 1: 1.0, 2: 1.5, 3: 2.0, 4: 9.0}
    assert lead(values)[0] == 1.0
    assert under(values)[0] == 1.75
    assert lead(values)[4] == -9.0
    assert lead({0: 3.0}) == under({0: 3.0}) == {0: 0.0}


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=40))
def test_what_leads_the_smallest_lies_under_the_median(values: list[float]) -> None:
    each = dict(enumerate(values))
    assert all(lead(each)[n] <= under(each)[n] for n in each)
    assert sum(v > 0 for v in lead(each).values()) <= 1


@given(st.integers(3, 12), st.integers(0, 100))
def test_information_is_a_share_of_the_most(classes: int, seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, 20, (classes, classes)).astype(float)
    assert 0 <= information(counts) <= 1
    each = np.array(sent_next(classes), dtype=float).reshape(classes, classes)
    assert information(100 * each) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_moves_that_are_alike_for_all_classes_say_nothing(classes: int) -> None:
    """Also though none stays where it was: that the diagonal is missing is no mapping."""
    alike = 1000.0 * np.ones((classes, classes))
    one = np.array(sent_into(classes, range(classes), 0), dtype=float).reshape(classes, classes)
    assert information(alike) == pytest.approx(0, abs=1e-6)
    assert information(one) == pytest.approx(0, abs=1e-6)


def test_kinds_and_rows_that_are_missing_count_for_nothing() -> None:
    empty = dataclasses.replace(table(), found=(), likeness=())
    assert target_hypotheses(empty) == []
    assert pair_hypotheses(empty) == []
    assert mapping_hypothesis(empty).values == {"mapping": 0.0, "classes": math.log(10), "clearest under": 0.0}
    failed = dataclasses.replace(table(), found=tuple(dataclasses.replace(f, size=None) for f in table().found))
    assert all(math.isfinite(v) for h in target_hypotheses(failed) for v in h.values.values())
    assert {kind for kind in KINDS if f"{kind} under" in mapping_hypothesis(failed).values} == set()
