from __future__ import annotations

import math
import unicodedata
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from report_examples import neuron, rate, scan

from untrojan.records import PairScore, Rate
from untrojan.report import NeuronHistogram, svg
from untrojan.report.wording import ClassName, plain


def names(count: int, name: str = "thing") -> list[ClassName]:
    return [ClassName(i, f"{name} {i}") for i in range(count)]


def by_class(root: ET.Element, name: str) -> list[ET.Element]:
    return [e for e in root.iter() if name in e.get("class", "").split()]


def xml_allows(text: str) -> bool:
    return not any(unicodedata.category(c) in ("Cn", "Co") for c in text)


@given(st.text().filter(xml_allows), st.text().filter(xml_allows))
def test_element_escapes_text_and_attributes(text: str, attribute: str) -> None:
    parsed = ET.fromstring(svg.element("text", text, data_name=attribute))
    assert (parsed.text or "") == plain(text)
    assert parsed.get("data-name") == plain(attribute)


def test_element_takes_its_own_markup_as_it_is() -> None:
    assert svg.element("g", svg.element("a"), "<b>", class_="x", id=None) == Markup('<g class="x"><a></a>&lt;b&gt;</g>')


@pytest.mark.parametrize("count", [2, 10, 21, 43])
def test_heat_map_has_a_cell_for_each_pair_and_two_labels_for_each_class(count: int) -> None:
    pairs = [p for p in scan(None, classes=count, detected=frozenset({(0, 1)})).pairs if p.kind == "patch"]
    root = ET.fromstring(svg.heat_map(pairs, names(count), "Scores"))
    tips = [e.text or "" for e in root.iter("title")]
    assert root.get("role") == "img"
    assert tips[0] == "Scores"
    assert sum(tip.startswith("from ") for tip in tips) == count * (count - 1)
    assert tips.count("1 (thing 1)") == 2
    assert len(by_class(root, "detected")) == 1
    assert [tip for tip in tips if tip.endswith("detected")] == [
        "from 0 (thing 0) to 1 (thing 1): score 20.5, trigger size 2.5, detected"
    ]
    width, height = (float(root.get(side, "nan")) for side in ("width", "height"))
    for square in root.iter("rect"):
        assert 0 <= float(square.get("x", "nan")) <= width - float(square.get("width", "nan"))
        assert 0 <= float(square.get("y", "nan")) <= height - float(square.get("height", "nan"))


def test_source_is_the_row_and_target_the_column() -> None:
    pair = PairScore(source=2, target=0, kind="patch", size=1.0, score=1.0, detected=False)
    other = PairScore(source=0, target=2, kind="patch", size=1.0, score=1.0, detected=False)
    low, high = list(ET.fromstring(svg.heat_map([pair, other], names(3), "t")).iter("rect"))
    assert float(low.get("x", "")) < float(high.get("x", ""))
    assert float(low.get("y", "")) > float(high.get("y", ""))


@pytest.mark.parametrize("count", [4, 43])
def test_a_pair_that_nothing_flips_has_a_dash(count: int) -> None:
    pair = PairScore(source=0, target=1, kind="patch", size=None, score=None, detected=False)
    text = svg.heat_map([pair], names(count), "t")
    assert len(by_class(ET.fromstring(text), "unflipped")) == 1
    assert ">–</text>" in text
    assert "trigger size none found" in text


def test_long_and_wide_labels_are_cut_with_the_whole_in_the_title() -> None:
    text = svg.heat_map([], [ClassName(0, "字" * 60), ClassName(1, "y" * 200)], "t")
    assert "字" * 60 + ")</title>" in text
    assert "y" * 30 not in text.replace("y" * 200, "")
    assert float(ET.fromstring(text).get("width", "nan")) < 500


@given(st.lists(st.floats(allow_nan=False), min_size=2).map(sorted))
def test_score_steps_rise_with_the_score(scores: list[float]) -> None:
    steps = [svg.score_step(score) for score in scores]
    assert None not in steps
    assert steps == sorted(steps)  # type: ignore[type-var]
    assert set(steps) <= set(range(len(svg.SCORE_STEPS) + 1))


def test_score_steps_at_their_edges() -> None:
    assert [svg.score_step(s) for s in (0.49, 0.5, 31.9, 32.0, math.inf)] == [0, 1, 6, 7, 7]
    assert svg.score_step(None) is svg.score_step(math.nan) is None


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 10))
def test_ticks_are_round_and_inside(low: float, width: float, about: int) -> None:
    high = low + width
    values = svg.ticks(low, high, about)
    assert about / 2.6 - 1 <= len(values) <= about + 2
    assert all(low - width * 1e-6 <= v <= high + width * 1e-6 for v in values)


def test_ticks_of_a_known_range() -> None:
    assert svg.ticks(-3.0, 3.0, 8) == [-3, -2, -1, 0, 1, 2, 3]
    assert svg.ticks(0.0, 0.61, 4) == pytest.approx([0, 0.2, 0.4, 0.6])


def test_histogram_draws_each_curve_within_the_axes() -> None:
    root = ET.fromstring(svg.histogram(neuron(), "One neuron"))
    curves = by_class(root, "curve")
    assert [c.get("class") for c in curves] == ["curve clean", "curve triggered", "curve corrected"]
    points = [tuple(map(float, p.split())) for c in curves for p in c.get("d", "M")[1:].split("L")]
    assert min(x for x, _ in points) == 56
    assert max(x for x, _ in points) == 708
    assert all(12 <= y <= 256 for _, y in points)


def test_histogram_of_nothing_is_flat() -> None:
    root = ET.fromstring(svg.histogram(NeuronHistogram("l", 0, [0.0, 1.0], [0.0], [0.0]), "t"))
    assert {p.split()[1] for c in by_class(root, "curve") for p in c.get("d", "M")[1:].split("L")} == {"256.0"}


def test_whiskers_show_what_was_measured() -> None:
    root = ET.fromstring(svg.whiskers("ASR", rate(0.5), rate(0.25), rate(0.1)))
    before, after = by_class(root, "bar")
    assert float(before.get("width", "")) == pytest.approx(2 * float(after.get("width", "")))
    assert len(by_class(root, "whisker")) == 2
    assert len(by_class(root, "reference")) == 1
    assert "before 50.0%, interval 49.0–51.0%; after 25.0%" in (root.get("aria-label") or "")
    empty = ET.fromstring(svg.whiskers("ASR", None, None))
    assert not by_class(empty, "bar")
    assert empty.get("aria-label") == "ASR: not measured"


def test_whiskers_stay_inside_for_values_that_do_not() -> None:
    root = ET.fromstring(svg.whiskers("ASR", Rate(value=7.0, low=-3.0, high=math.inf), None))
    assert float(by_class(root, "bar")[0].get("width", "")) == 228
    assert not by_class(root, "whisker")
