"""The style sheet's colours can be told apart from what they stand on, in both schemes."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from untrojan.report.svg import FIRST_INVERTED_STEP, SCORE_STEPS

CSS = resources.files("untrojan.report").joinpath("templates/style.css").read_text("utf-8")
LIGHT, DARK = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in CSS.split(":root {")[1:])


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_formula() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_is_readable(scheme: dict[str, str]) -> None:
    pairs = [("ink", "page"), ("soft", "page"), ("ink", "panel"), ("bad", "page")]
    pairs += [(tone, f"{tone}-page") for tone in ("bad", "good", "unsure", "neutral")]
    pairs += [("ink", f"{tone}-page") for tone in ("bad", "good", "unsure", "neutral")]
    pairs += [("cell" if i < FIRST_INVERTED_STEP else "inverted", f"q{i}") for i in range(len(SCORE_STEPS) + 1)]
    pairs += [("cell", "unflipped")]
    for text, ground in pairs:
        assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_marks_stand_out(scheme: dict[str, str]) -> None:
    for mark in ("hit", "clean", "triggered", "corrected", "after"):
        assert contrast(scheme[mark], scheme["page"]) >= 3, mark


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_scores_run_one_way_in_lightness(scheme: dict[str, str]) -> None:
    ramp = [luminance(scheme[f"q{i}"]) for i in range(len(SCORE_STEPS) + 1)]
    assert ramp in (sorted(ramp), sorted(ramp, reverse=True))
    assert len(set(ramp)) == len(ramp)


def test_both_schemes_define_the_same_colours() -> None:
    assert LIGHT.keys() == DARK.keys()
    assert set(re.findall(r"var\(--([\w-]+)\)", CSS)) <= LIGHT.keys() | {"tone", "tone-page"}
