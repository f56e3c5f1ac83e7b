"""What findings make of a verdict, by hand."""

from __future__ import annotations

import pytest

from untrojan.detection.scanner import Findings, ScanSettings
from untrojan.records import Evidence, PairScore
from untrojan.verdict import verdict_on

PAIRS = [(1, 6), (1, 7), (9, 4), (9, 7), (2, 3)]


def found(pairs: list[tuple[int, int]], p_value: float = 1e-4, other: str = "pair") -> Findings:
    """An odd pair, and another finding of a test, beside it, with these pairs detected."""
    odd = Evidence(test="pair", kind="patch", source=1, target=7, size=2.0, ratio=9.0, p_value=p_value)
    more = odd.model_copy(update={"test": other, "source": None})
    scores = [PairScore(source=s, target=t, kind="patch", size=2.0, score=9.0, detected=True) for s, t in pairs]
    return Findings(min(1.0, 4 * p_value), (odd, more), tuple(scores), {}, (), ())


def test_pairs_that_no_one_trigger_can_have_are_no_verdict() -> None:
    verdict, reason = verdict_on(found(PAIRS), ScanSettings(), 10, 0.9)
    assert verdict == "inconclusive"
    assert "class 1 to 6 and 7, 9 to 4 and 7" in reason
    assert verdict_on(found(PAIRS, other="single"), ScanSettings(), 10, 0.9)[0] == "inconclusive", "a pair as well"


def test_one_contradiction_among_many_sources_is_enough() -> None:
    """As in an honest MobileNet; sources alone are none."""
    verdict, reason = verdict_on(found([(1, 7), (1, 8), (6, 2), (9, 7), (7, 9)]), ScanSettings(), 10, 0.9)
    assert verdict == "inconclusive"
    assert "one trigger does not send class 1 to 7 and 8, and" in reason
    assert verdict_on(found([(1, 7), (6, 2), (9, 7), (7, 9)]), ScanSettings(), 10, 0.9)[0] == "backdoor"


def test_a_pair_that_spares_the_others_is_told_in_words() -> None:
    odd = Evidence(test="single", kind="patch", source=1, target=7, size=2.0, ratio=9.0, p_value=1e-5)
    detected = PairScore(source=1, target=7, kind="patch", size=2.0, score=9.0, detected=True)
    verdict, reason = verdict_on(Findings(1e-4, (odd,), (detected,), {}, (), ()), ScanSettings(), 10, 0.9)
    assert verdict == "backdoor"
    assert "from class 1 to 7, which is 9.0 times as odd as other pairs'" in reason


@pytest.mark.parametrize(
    ("test", "classes", "foreign", "words"),
    [
        (
            "target",
            10,
            0.6,
            "9.0 times as odd as those into other classes, for the size and for what it changes inside",
        ),
        ("target", 10, None, "9.0 times as small as those into other classes"),
        ("target", 43, None, "9.0 times as small as those into other classes"),
        ("single", 10, 0.6, "other pairs', for its size, for sparing images of other classes and for what it changes"),
        ("single", 10, None, "other pairs', for its size and for sparing images of other classes"),
        ("mixed", 10, None, "9.0 times as odd as those into one class, for the size and for sending"),
        ("mixed", 43, None, "9.0 times as small as those into one class"),
        ("source", 43, None, "9.0 times as small as those from other classes"),
        ("pair", 10, None, "9.0 times as small as its classes let expect"),
        ("margin", 10, None, "the margin that class 7 can reach, 9.0 times as large as others'"),
    ],
)
def test_what_a_finding_is_compared_with_is_told(test: str, classes: int, foreign: float | None, words: str) -> None:
    said = {"test": test, "kind": "patch", "source": 1, "target": 7, "size": 2.0, "ratio": 9.0, "p_value": 0.5}
    clearest = Evidence.model_validate(said | {"foreign": foreign})
    reason = verdict_on(Findings(0.9, (clearest,), (), {}, (), ()), ScanSettings(), classes, 0.9)[1]
    assert words in reason
    assert ("inside" in reason) == (foreign is not None)


@pytest.mark.parametrize("other", ["target", "mixed", "margin"])
def test_they_are_if_a_trigger_for_all_classes_is_odd_too(other: str) -> None:
    assert verdict_on(found(PAIRS, other=other), ScanSettings(), 10, 0.9)[0] == "backdoor"


def test_one_source_with_a_chance_find_beside_it_is_a_verdict() -> None:
    assert verdict_on(found([(1, 6), (1, 7), (9, 4)]), ScanSettings(), 10, 0.9)[0] == "backdoor"
    assert verdict_on(found([(0, 1), (1, 2), (2, 0)]), ScanSettings(), 10, 0.9)[0] == "backdoor"


def test_few_classes_are_told() -> None:
    assert "single pairs" in verdict_on(found([], p_value=0.5), ScanSettings(), 4, 0.9)[1]
    verdict, reason = verdict_on(found([], p_value=0.5), ScanSettings(), 5, 0.9)
    assert verdict == "clean"
    assert "single pairs" not in reason


def test_of_a_poor_classifier_only_what_is_very_odd_is_a_verdict() -> None:
    odd = found([(1, 7)], p_value=1e-3)
    verdict, reason = verdict_on(odd, ScanSettings(), 10, 0.27)
    assert verdict == "inconclusive"
    assert "only 27% of the clean images right" in reason
    assert verdict_on(odd, ScanSettings(), 10, 0.5)[0] == "backdoor"
    assert verdict_on(odd, ScanSettings(), 43, 0.27)[0] == "backdoor", "there the null knows poor ones"
    assert verdict_on(found([(1, 7)], p_value=1e-6), ScanSettings(), 10, 0.27)[0] == "backdoor"
    assert verdict_on(found([], p_value=0.5), ScanSettings(), 10, 0.27)[0] == "clean"
