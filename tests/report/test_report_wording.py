from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_examples import scan, victim

from untrojan.records import PairScore, Rate
from untrojan.report import ReportContent
from untrojan.report.tables import facts, top_pairs
from untrojan.report.wording import (
    ClassName,
    duration,
    interval,
    listing,
    number,
    percent,
    plain,
    probability,
    score_text,
    shorten,
)


@given(st.text())
def test_plain_text_is_printable_in_one_line_and_encodable(text: str) -> None:
    shown = plain(text)
    assert shown.encode("utf-8").decode() == shown
    assert len(shown.splitlines()) <= 1
    assert not set(shown) & set("\x1b\r\n\t\x00\u202e\u2066")


def test_plain_keeps_ordinary_text_of_every_script() -> None:
    for text in ("truck", "שלום", "汉字", "👩\u200d👩\u200d👧", "é", "<b>"):
        assert plain(text) == text


@given(st.text(), st.integers(1, 60))
def test_shortened_text_fits(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert len(short) <= limit or short == text
    assert short == text if len(text) <= limit else short.endswith("…")


def test_shorten_does_not_cut_an_emoji() -> None:
    family = "👩\u200d👩\u200d👧"
    assert shorten("ab" + family + "cdef", 5) == "ab…"
    assert shorten("abcdef", 4) == "abc…"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0%"), (0.0001, "<0.1%"), (0.0125, "1.2%"), (0.9999, ">99.9%"), (1.0, "100.0%"), (0.5, "50.0%")],
)
def test_percent(value: float, text: str) -> None:
    assert percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"), (math.nan, "none"), (math.inf, "∞"), (-math.inf, "−∞"), (0.0, "0"), (15.318, "15.3"),
        (999.7, "1,000"), (1234.5, "1,234"), (-0.0421, "−0.0421"), (2.3e-9, "2.30e-09"), (5e7, "5.00e+07"),
    ],
)  # fmt: skip
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


def test_scores_keep_one_decimal() -> None:
    assert [score_text(s) for s in (23.0, 4321.5, None, -0.5, math.inf)] == ["23.0", "4,322", "none", "−0.5", "∞"]


def test_durations() -> None:
    assert [duration(s) for s in (0.42, 94, 7260, math.nan)] == ["0.4 s", "1 min 34 s", "2 h 1 min", "not measured"]


def test_probabilities_and_intervals() -> None:
    assert probability(0.0312) == "p-value 0.0312"
    assert probability(2e-9) == "p-value below 0.0001"
    assert interval(Rate(value=0.5, low=0.4, high=0.612)) == "40.0–61.2%"
    assert interval(Rate(value=0.5, low=math.nan, high=1)) == "no interval"


def test_class_names_fall_back_to_numbers() -> None:
    assert ClassName.of(victim(), 3).full == "3 (truck)"
    assert ClassName.of(victim(("a", " ")), 1).full == "1"
    assert ClassName.of(victim(None, classes=5), 4).word == "class 4"
    assert ClassName.of(victim(("a", "b"), classes=5), 4).full == "4"
    assert ClassName.of(None, 4).short == "4"
    assert ClassName(0, "n" * 200).short == "0 (" + "n" * 31 + "…)"


def test_listings_are_grammatical() -> None:
    def text(count: int) -> str:
        return "".join(
            p if isinstance(p, str) else str(getattr(p, "number", "")) for p in listing(map(ClassName, range(count)))
        )

    assert [text(n) for n in (1, 2, 4, 5)] == ["0", "0 and 1", "0, 1, 2 and 3", "0, 1, 2 and 2 more"]


def test_top_pairs_are_detected_first_then_by_score() -> None:
    def pair(source: int, score: float | None, detected: bool = False) -> PairScore:
        return PairScore(source=source, target=0, kind="patch", size=1.0, score=score, detected=detected)

    pairs = [pair(1, 5.0), pair(2, None), pair(3, 9.0), pair(4, 1.0, True), pair(5, math.nan), pair(6, math.inf)]
    assert [p.source for p in top_pairs(pairs, 10)] == [4, 6, 3, 1, 2, 5]
    assert len(top_pairs(pairs, 2)) == 2


def test_facts_flatten_the_settings() -> None:
    strange = {
        "a": {"b": {"c": [1, 2]}},
        "empty": {},
        "text": "x",
        "none": None,
        "object": {
            1,
        },
    }
    rows = dict(facts(ReportContent(scan=scan(settings=strange)))[1].rows)
    assert rows["a.b.c"] == "[1, 2]"
    assert rows["empty"] == "{}"
    assert rows["text"] == "x"
    assert rows["none"] == "null"
    assert rows["Seed"] == "7"


def test_a_name_that_is_the_number_is_not_said_twice() -> None:
    named = victim(("0", "cat", "2", "3"))
    assert [ClassName.of(named, number).full for number in (0, 1)] == ["0", "1 (cat)"]
