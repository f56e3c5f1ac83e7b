"""The trigger of a target, searched again from all its sources."""

from __future__ import annotations

import dataclasses

import torch

from planted import CLASSES, SIDE, planted_classifier, planted_images
from search_tables import table
from untrojan.classifier import as_found
from untrojan.detection.features import Hypothesis
from untrojan.detection.found import Key
from untrojan.detection.inversion import Budget
from untrojan.detection.localise import Member, Named
from untrojan.detection.reestimate import reestimate
from untrojan.detection.shares import Searches
from untrojan.detection.table import Found
from untrojan.progress import Silent
from untrojan.triggers import PatchTrigger

ROWS = tuple(Found("target-wise", "patch", 1.0, 0.9, 50, None, 3, stage=stage) for stage in (0, 1))
TABLE = dataclasses.replace(table(CLASSES), found=ROWS)


def corner(value: float = 1.0) -> PatchTrigger:
    mask, pattern = torch.zeros(1, SIDE, SIDE), torch.full((1, SIDE, SIDE), 0.5)
    mask[0, 7, 7], pattern[0, 7, 7] = value, 1.0
    return PatchTrigger(mask, pattern)


def run(budget: Budget, sources: tuple[int, ...] = (0, 1, 2, 4), deadline: float | None = None) -> dict:
    images, labels = planted_images()
    members = tuple(Member(s, 3, "patch", 1.0) for s in sources)
    one = Named(Hypothesis("target-wise", None, 3, {}), 3.0, ("patch",), members)
    weak, last = Key("target-wise", "patch", target=3), Key("target-wise", "patch", target=3, stage=1)
    classifier = planted_classifier(target=3)
    with as_found(classifier):
        searches = Searches(classifier, seed=0, progress=Silent(), deadline=deadline)
        known = {weak: corner(0.2), last: corner()}
        return reestimate(searches, [one], TABLE, known, images.float() / 255, labels, budget)


def test_it_works_on_all_sources() -> None:
    (key, trigger), *rest = run(Budget(steps=40, images=14, level=0.9)).items()
    assert (key, rest) == ((3, "patch"), [])
    images, labels = planted_images(seed=5)
    answers = planted_classifier(target=3).predict(trigger.stamp(images.float() / 255)).argmax(1)
    assert float((answers[labels != 3] == 3).float().mean()) > 0.7


def test_where_no_search_succeeds_or_none_is_left_time_for_it_is_the_scans_own() -> None:
    for found in (run(Budget(steps=1, images=14, level=1.1)), run(Budget(steps=40, images=14), deadline=0.0)):
        assert found[3, "patch"].sha256() == corner().sha256(), "the one that was searched the longest"


def test_sources_without_images_give_nothing_new() -> None:
    assert run(Budget(steps=5, images=14), sources=(CLASSES + 3,))[3, "patch"].sha256() == corner().sha256()
