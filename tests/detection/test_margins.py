"""The margin that a class can be brought to, on a network whose answer is known."""

from __future__ import annotations

import numpy as np
import torch

from planted import CLASSES, planted_classifier, planted_images
from untrojan.classifier import as_found
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
    others = np.delete(attacked, 2)
    assert attacked[2] > 2 * others.max() > 1.5 * others.min()


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


def test_margins_do_not_depend_on_the_process_state() -> None:
    torch.manual_seed(1)
    first = margins(30.0)[0]
    torch.manual_seed(2)
    assert np.array_equal(first, margins(30.0)[0])
