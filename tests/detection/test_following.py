"""Which odd trigger explains which class pair."""

from __future__ import annotations

import torch

from untrojan.detection.evidence import Finding
from untrojan.detection.following import Lead, explained
from untrojan.triggers import PatchTrigger

TRIGGER = PatchTrigger(mask=torch.zeros(1, 2, 2), pattern=torch.zeros(1, 2, 2))


def lead(test: str, kind: str, moves: dict[tuple[int, int], float], **where: int) -> Lead:
    return Lead(Finding(test, kind, 2.0, 1.0, 10, **where), TRIGGER, moves)


INTO_3 = lead("target", "patch", {(s, 3): 1.0 for s in (0, 1, 2, 4)}, target=3)


def test_what_sends_most_to_a_known_target_is_no_second_attack() -> None:
    pair = lead("pair", "additive", {(4, 2): 1.0, (0, 3): 0.6, (1, 3): 0.5, (2, 3): 0.4}, source=4, target=2)
    mixed = lead("mixed", "additive", {(0, 3): 0.9, (1, 3): 0.8, (4, 2): 0.5})
    found = explained([INTO_3, mixed, pair])
    assert {target for _, target in found} == {3}
    assert all(each is INTO_3 for each in found.values())


def test_what_sends_most_elsewhere_is_one() -> None:
    pair = lead("pair", "additive", {(4, 2): 1.0, (0, 3): 0.3}, source=4, target=2)
    other = lead("pair", "additive", {(4, 2): 1.0, (0, 1): 0.6, (1, 2): 0.4, (2, 3): 0.5}, source=4, target=2)
    assert (4, 2) not in explained([INTO_3, pair]), "half of two is most"
    assert explained([INTO_3, other])[4, 2] is other


def test_a_target_belongs_to_the_kind_that_shows_it_most_clearly() -> None:
    additive = lead("target", "additive", {(0, 3): 1.0, (1, 3): 1.0}, target=3)
    assert {each.finding.kind for each in explained([INTO_3, additive]).values()} == {"patch"}
    assert {each.finding.kind for each in explained([additive, INTO_3]).values()} == {"additive"}


def test_a_blend_explains_what_nothing_else_does() -> None:
    blend = lead("target", "blend", {(s, t): 1.0 for t in (2, 3) for s in (0, 1)}, target=2)
    found = explained([blend, INTO_3])
    assert {each.finding.kind for pair, each in found.items() if pair[1] == 3} == {"patch"}
    assert {each.finding.kind for pair, each in found.items() if pair[1] == 2} == {"blend"}


def test_what_a_stronger_trigger_moves_counts_for_classes_that_nothing_else_moves() -> None:
    """Once for each, and not into a target that another kind shows more clearly."""
    finding = Finding("mixed", "additive", 2.0, 1.0, 10)
    clear = Lead(finding, TRIGGER, {(0, 1): 0.9}, {(0, 2): 0.9, (2, 4): 0.8, (4, 3): 0.8})
    other = Lead(finding, TRIGGER, {(1, 2): 0.9}, {(2, 0): 0.9})
    found = explained([INTO_3, clear, other])
    assert {pair for pair in found if pair[1] != 3} == {(0, 1), (1, 2)}, "2 and 4 are sent to 3 as it is"
    found = explained([clear, other])
    assert found == {(0, 1): clear, (1, 2): other, (2, 4): clear, (4, 3): clear}
    blend = Lead(Finding("mixed", "blend", 9.0, 1.0, 10), TRIGGER, {}, {(4, 0): 0.9})
    assert explained([blend, clear])[4, 3] is clear, "a blend comes last"
    patch = lead("pair", "patch", {(1, 3): 1.0}, source=1, target=3)
    assert (4, 3) not in explained([patch, clear]), "that target is a patch's"
