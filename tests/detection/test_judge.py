"""Verdicts and what they name, on search tables made by hand: no network is searched here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from search_tables import WEIGHTS, network, reference_by_hand, sent_into, table
from untrojan.detection.evidence import evidence_of, pair_scores
from untrojan.detection.features import pair_hypotheses, unlike
from untrojan.detection.judge import OVERWHELMING, fed_wrongly, judge, threshold, unsearchable
from untrojan.detection.localise import Member, Named, kinds_of, mapping_of, members_of, named, without
from untrojan.detection.reference import Reference, built_in
from untrojan.detection.score import hypotheses
from untrojan.detection.table import Likeness, SearchTable
from untrojan.detection.table_files import read_tables, write_tables


@pytest.fixture(scope="module")
def reference() -> Reference:
    return reference_by_hand()


def pairs_of(ruling) -> set[tuple[int, int]]:
    return {(m.source, m.target) for one in ruling.named for m in one.members}


@pytest.mark.parametrize("classes", [3, 5, 10])
def test_one_target_is_found_from_all_classes(reference: Reference, classes: int) -> None:
    ruling = judge(table(classes, 99, target=1), reference)
    assert ruling.verdict == "backdoor"
    assert pairs_of(ruling) == {(s, 1) for s in range(classes) if s != 1}
    assert "into class 1 are anomalous" in ruling.reason
    assert ruling.p_value < 0.01


def test_the_reference_set_of_the_package_knows_all_that_it_weighs() -> None:
    """And by it a clear target, and a clear mapping, are what they are: other weights than those of this file."""
    own = built_in()
    for scope, found in hypotheses(table(10, 99, target=1)).items():
        assert set(own.weights[scope]) - {"intercept"} <= set(found[0].values), scope
        assert len(own.weights[scope]) > 2
    ruling = judge(table(10, 99, target=1), own)
    assert (ruling.verdict, pairs_of(ruling)) == ("backdoor", {(s, 1) for s in range(10) if s != 1})
    assert judge(table(10, 99, mapping=True), own).verdict == "backdoor"
    assert judge(table(10, 99), own).verdict == "clean"


def test_what_is_named_is_taken_out_of_what_the_others_are_compared_with() -> None:
    made = table(5, 99, target=1)
    inside = np.full((5, 5), 0.9)
    inside[1, :] = inside[:, 1] = 0.0
    made = dataclasses.replace(made, likeness=(Likeness("patch", (0.0,) * 25, tuple(inside.ravel())),))
    left = without(made, {1})
    assert {f.target for f in left.rows("target-wise")} == {0, 2, 3, 4}
    assert unlike(left) == pytest.approx(dict.fromkeys((0, 2, 3, 4), 0.0))
    assert left.likeness[0].look == made.likeness[0].look
    assert np.isnan(left.network.reach[1])
    assert made.likeness[0].inside[1] == 0.0


@pytest.mark.parametrize("classes", [5, 10])
def test_a_mapping_is_found_pair_by_pair(reference: Reference, classes: int) -> None:
    ruling = judge(table(classes, 99, mapping=True), reference)
    assert ruling.verdict == "backdoor"
    assert pairs_of(ruling) == {(s, (s + 1) % classes) for s in range(classes)}


def test_where_a_mapping_sends_a_class_is_read_from_all_triggers_that_show_it() -> None:
    """Each leaves some classes where they are, and one that sends all into a single class says nothing of the rest."""
    made = table(6, 99, mapping=True)
    rows = []
    for f in made.found:
        if f.scope == "untargeted" and f.number == 0:
            kept = np.array(f.sent).reshape(6, 6)
            lazy = {"patch": (0, 1), "additive": (2, 3)}.get(f.kind, ())
            kept[list(lazy)] = 20 * np.eye(6, dtype=int)[list(lazy)]
            f = dataclasses.replace(f, sent=tuple(kept.ravel().tolist()))
        elif f.scope == "untargeted":
            f = dataclasses.replace(f, sent=sent_into(6, range(6), 4))
        rows.append(f)
    assert mapping_of(dataclasses.replace(made, found=tuple(rows))) == [(s, (s + 1) % 6) for s in range(6)]
    assert mapping_of(dataclasses.replace(made, found=())) == []


def test_a_single_pair_is_found_and_only_that(reference: Reference) -> None:
    ruling = judge(table(10, 99, pair=(3, 7)), reference)
    assert ruling.verdict == "backdoor"
    assert pairs_of(ruling) == {(3, 7)}


def test_a_second_target_needs_more_than_the_first(reference: Reference) -> None:
    """The weakest one that would do alone is not named beside another; an overwhelming one is."""

    def both(shrink: float) -> SearchTable:
        made = table(10, 99, target=1, shrink=0.01)
        rows = (
            dataclasses.replace(f, size=shrink * f.size) if f.scope == "target-wise" and f.target == 5 else f
            for f in made.found
        )
        return dataclasses.replace(made, found=tuple(rows))

    def targets(named: Sequence[Named]) -> set[int]:
        return {m.target for one in named for m in one.members}

    level = threshold(reference, 0.01)
    weak = next(
        made
        for made in (both(s / 100) for s in range(95, 5, -2))
        if targets(named(made, reference.scored, level, level)) == {1, 5}
    )
    assert targets(judge(weak, reference).named) == {1}
    assert targets(judge(both(0.02), reference).named) == {1, 5}


def test_a_trigger_for_all_classes_takes_the_place_of_a_pair_that_it_moves(reference: Reference) -> None:
    """Though the pair scores higher."""
    made = table(10, 99, target=7)
    small = tuple(
        dataclasses.replace(f, size=0.02 * f.size, off_target=0.001)
        if f.scope == "pair-wise" and (f.source, f.target) == (6, 7) and f.stage == 1
        else f
        for f in made.found
    )
    ruling = judge(dataclasses.replace(made, found=small), reference)
    assert ruling.found["pair-wise"][0].log_odds > ruling.found["target-wise"][0].log_odds
    assert [one.hypothesis.scope for one in ruling.named] == ["target-wise"]
    assert pairs_of(ruling) == {(s, 7) for s in range(10) if s != 7}


def test_detected_pairs_of_a_kind_without_pair_searches_stand_out_from_other_classes(reference: Reference) -> None:
    made = table(10, 99, target=1)
    members = [Member(s, 1, "warp", 0.01) for s in range(10) if s != 1]
    scores = [p.score for p in pair_scores(made, members) if p.kind == "warp"]
    assert len(scores) == 9
    assert min(scores) > 7


@pytest.mark.parametrize("classes", [3, 5, 10])
def test_clean_tables_are_clean(reference: Reference, classes: int) -> None:
    rulings = [judge(table(classes, 200 + seed), reference) for seed in range(20)]
    assert [r.verdict for r in rulings].count("clean") >= 19
    assert all(not r.named for r in rulings if r.verdict == "clean")


def test_a_look_alike_of_the_true_trigger_is_no_second_target(reference: Reference) -> None:
    """Two small triggers: variants of one if they are alike, two targets if they are not."""
    made = table(10, 99, target=1)
    second = {f.kind: f.size for f in made.rows("target-wise") if f.target == 1}
    rows = tuple(
        dataclasses.replace(f, size=1.1 * second[f.kind], off_subspace=0.9)
        if f.scope == "target-wise" and f.target == 4
        else f
        for f in made.found
    )
    two = dataclasses.replace(made, found=rows)
    assert {t for _, t in pairs_of(judge(two, reference))} == {1, 4}
    alike = list(made.likeness[0].look)
    alike[1 * 10 + 4] = alike[4 * 10 + 1] = 0.9
    variants = tuple(Likeness(one.kind, tuple(alike), one.inside) for one in made.likeness)
    assert {t for _, t in pairs_of(judge(dataclasses.replace(two, likeness=variants), reference))} in ({1}, {4})


def test_a_class_that_the_trigger_does_not_move_is_no_source(reference: Reference) -> None:
    made = table(10, 99, target=1)
    sent = sent_into(10, [0, 2, 3, 4, 5], 1)
    rows = tuple(dataclasses.replace(f, sent=sent) if f.scope == "target-wise" else f for f in made.found)
    assert pairs_of(judge(dataclasses.replace(made, found=rows), reference)) == {(s, 1) for s in (0, 2, 3, 4, 5)}


def test_what_is_anomalous_and_moves_nothing_is_inconclusive(reference: Reference) -> None:
    made = table(10, 99, target=1)
    rows = tuple(dataclasses.replace(f, sent=sent_into(10, [], 1)) for f in made.rows("target-wise"))
    ruling = judge(dataclasses.replace(made, found=rows), reference)
    assert (ruling.verdict, ruling.named) == ("inconclusive", ())
    assert "could not be told" in ruling.reason


def test_images_that_are_fed_wrongly_are_inconclusive_and_the_better_way_is_named(reference: Reference) -> None:
    half = dataclasses.replace(network(accuracy=0.6), alternatives=(("mean 0.5 and std 0.5", 0.94), ("x", 0.3)))
    for made in (table(seed=99), table(seed=99, target=1, shrink=0.7)):
        ruling = judge(dataclasses.replace(made, network=half), reference)
        assert ruling.verdict == "inconclusive"
        assert "60%" in ruling.reason
        assert "94% with mean 0.5 and std 0.5" in ruling.reason
    right = dataclasses.replace(half, alternatives=(("values of 0 to 255", 0.62),))
    assert fed_wrongly(right) is None, "hardly better"
    assert fed_wrongly(network()) is None
    few = dataclasses.replace(half, images=(1,) * 10)
    assert fed_wrongly(few) is None, "ten images cannot tell"


def test_beyond_what_the_reference_set_spans_only_the_overwhelming_counts(reference: Reference) -> None:
    beyond = {"limits": {"classes": 4.0}}
    small = reference.model_copy(update=beyond)
    assert judge(table(10, 99), small).verdict == "inconclusive"
    assert "more than 4 classes" in judge(table(10, 99), small).reason
    assert judge(table(10, 99, target=1, shrink=0.05), small).verdict == "backdoor"
    weak = next(
        t
        for t in (table(10, 99, target=1, shrink=s / 100) for s in range(95, 5, -1))
        if OVERWHELMING < judge(t, reference).p_value < 0.01
    )
    assert OVERWHELMING < 3e-6, "clean networks beyond the reference set reach that"
    assert judge(weak, reference).verdict == "backdoor"
    assert judge(weak, small).verdict == "inconclusive"


def test_what_was_not_searched_or_not_found_is_inconclusive(reference: Reference) -> None:
    late = dataclasses.replace(table(seed=99), unreached=("patch triggers: each pair (3 of 90)",))
    assert "which did not suffice for patch triggers: each pair" in judge(late, reference).reason
    failed = tuple(
        dataclasses.replace(f, size=None) if f.kind == "patch" and f.scope == "target-wise" else f
        for f in table(seed=99).found
    )
    assert unsearchable(dataclasses.replace(table(seed=99), found=failed)) == ("patch",)
    assert judge(dataclasses.replace(table(seed=99), found=failed), reference).verdict == "inconclusive"
    warps = tuple(dataclasses.replace(f, size=None) if f.kind == "warp" else f for f in table(seed=99).found)
    assert judge(dataclasses.replace(table(seed=99), found=warps), reference).verdict == "clean"


def test_the_level_of_false_alarms_is_what_decides(reference: Reference) -> None:
    weak = next(
        t
        for t in (table(10, 99, target=1, shrink=s / 100) for s in range(95, 5, -1))
        if 0.01 < judge(t, reference).p_value < 0.05
    )
    assert judge(weak, reference).verdict == "clean"
    assert judge(weak, reference, alpha=0.05).verdict == "backdoor"
    level = threshold(reference, 0.01)
    assert reference.p_value(level + 1e-3) < 0.01 <= reference.p_value(level - 1e-3)


def test_of_an_attack_in_one_kind_that_kind_is_named() -> None:
    made = table(10, 99, target=1)
    usual = {kind: max(f.size for f in made.rows("target-wise", kind)) for kind in ("additive", "blend", "warp")}
    rows = tuple(
        dataclasses.replace(f, size=usual[f.kind])
        if f.kind in usual and f.scope == "target-wise" and f.target == 1
        else f
        for f in made.found
    )
    alone = dataclasses.replace(made, found=rows)
    start = Reference(weights=WEIGHTS, limits={}, models=())
    best = start.scored(alone)["target-wise"][0].hypothesis
    assert kinds_of(best, alone) == ("patch",)
    assert {m.kind for m in members_of(alone, best, "patch")} == {"patch"}
    assert named(alone, start.scored, 1e9, 1e9) == []


def test_a_report_shows_the_likeliest_of_every_scope(reference: Reference) -> None:
    made = table(10, 99, target=1)
    ruling = judge(made, reference)
    rows = evidence_of(ruling, made, reference)
    own = next(row for row in rows if row.scope == "target-wise")
    assert (own.target, own.source) == (1, None)
    assert own.ratio > 3
    assert rows[0].p_value < 0.01
    assert {row.scope for row in rows} == set(WEIGHTS)
    members = [m for one in ruling.named for m in one.members]
    scores = pair_scores(made, members)
    assert {(p.source, p.target) for p in scores if p.detected} == pairs_of(ruling)
    assert len([p for p in scores if p.kind == "patch"]) == 90


def test_a_verdict_is_a_function_of_the_table_and_of_no_order(reference: Reference, tmp_path: Path) -> None:
    made = table(10, 99, target=1)
    shuffled = dataclasses.replace(made, found=tuple(reversed(made.found)))
    write_tables(tmp_path / "t", [made])
    for other in (shuffled, read_tables(tmp_path / "t")[0]):
        first, second = judge(made, reference), judge(other, reference)
        assert (first.verdict, first.reason, pairs_of(first)) == (second.verdict, second.reason, pairs_of(second))
        assert second.p_value == pytest.approx(first.p_value, rel=1e-3)


def test_where_there_are_too_few_models_nothing_is_called_clean(reference: Reference) -> None:
    """Else the most anomalous network would be."""
    for made in (table(10, 99), table(10, 99, target=1)):
        ruling = judge(made, reference.model_copy(update={"models": reference.models[:12]}))
        assert ruling.verdict == "inconclusive"
        assert "the reference set has 12 clean models, too few to tell" in ruling.reason
    empty = Reference(weights=WEIGHTS, limits={}, models=())
    assert judge(table(10, 99, target=1), empty).verdict == "inconclusive"


def test_a_pair_that_is_not_small_is_of_the_kind_that_it_was_searched_in() -> None:
    made = table(10, 99, pair=(3, 7))
    hypothesis = next(h for h in pair_hypotheses(made) if (h.source, h.target) == (3, 7))
    flat = dataclasses.replace(hypothesis, values={f"{kind} under": -0.1 for kind in ("patch", "additive")})
    assert set(kinds_of(flat, made)) <= {"patch", "additive"}
    assert members_of(made, flat, kinds_of(flat, made)[0])
