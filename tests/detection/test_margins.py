"""The margin that a class can be brought to, on a network whose answer is known."""

from __future__ import annotations

import numpy as np
import torch

from planted import CLASSES, planted_classifier, planted_images
from untrojan.classifier import as_found
from untrojan.detection.comparisons import margin_findings
from untrojan.detection.evidence import Finding, with_triggers
from untrojan.detection.margins import largest_margins
from untrojan.detection.shares import Searches
from untrojan.progress import Silent


def margins(strength: float, deadline: float | None = None) -> tuple[np.ndarray, list[str]]:
    classifier = planted_classifier(target=2, strength=strength)
    images, labels = planted_images(6)
    searches = Searches(classifier, seed=0, progress=Silent(), deadline=deadline)
    with as_found(classifier):
        return largest_margins(searches, images.float() / 255, labels, CLASSES), searches.unreached


def test_the_planted_target_reaches_the_largest_margin() -> None:
    attacked, _ = margins(30.0)
    assert attacked.argmax() == 2
    found = margin_findings(attacked)
    assert max(found, key=lambda f: f.value).target == 2
    assert max(f.value for f in found) > 2 * max(f.value for f in margin_findings(margins(0.0)[0]))


def test_margins_are_found_again_and_cannot_exceed_what_the_pixels_allow() -> None:
    first, second = margins(0.0)[0], margins(0.0)[0]
    assert np.array_equal(first, second)
    # One bright row of the five, all eight pixels at 1: (8 - 2) / 2 twice, less what the others, at 0, keep.
    assert (first < 8.01).all()
    assert (first > 6).all()


def test_without_time_it_says_so() -> None:
    reached, unreached = margins(30.0, deadline=0.0)
    assert np.isnan(reached).all()
    assert unreached == ["margins (5 of 5)"]
    assert margin_findings(reached) == []


def test_classes_that_cannot_be_reached_are_no_evidence_against_the_others() -> None:
    usual = np.array([9.0, 10.0, 11.0, 10.5, 9.5, -4.0, 0.0, np.nan])
    assert {f.target for f in margin_findings(usual)} == set(range(7))
    assert max(f.value for f in margin_findings(usual)) < 0.3


def test_a_margin_is_followed_by_the_oddest_trigger_into_its_class() -> None:
    margin = Finding("margin", "margin", 2.0, 30.0, 10, target=4)
    targets = [Finding("target", kind, value, 1.0, 10, target=4) for kind, value in (("patch", 0.2), ("warp", 0.6))]
    other = Finding("target", "patch", 3.0, 1.0, 10, target=5)
    assert with_triggers([margin], [*targets, other, margin]) == [targets[1]]
    assert with_triggers([margin, other], [other, margin]) == [other]


def test_margins_do_not_depend_on_the_process_state() -> None:
    torch.manual_seed(1)
    first = margins(30.0)[0]
    torch.manual_seed(2)
    assert np.array_equal(first, margins(30.0)[0])
