"""Which classes go on, and on what."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from planted import CLASSES, planted_classifier, planted_images
from untrojan.detection import targets
from untrojan.detection.additive import AdditiveFamily
from untrojan.detection.comparisons import target_values
from untrojan.detection.inversion import Budget
from untrojan.detection.patch import PatchFamily
from untrojan.detection.results import KindResults
from untrojan.detection.search import Searches
from untrojan.detection.targets import TargetSettings, images_of_others, search_targets
from untrojan.detection.warp import WarpFamily
from untrojan.progress import Silent

SETTINGS = TargetSettings(
    screening=Budget(steps=40, images=16, level=0.75),
    of_few={},
    smallest=2,
    refined=2,
    refining=Budget(steps=20, images=16, level=0.75, patience=50),
)


def searched(many, monkeypatch):
    monkeypatch.setattr(targets, "MANY", many)
    classifier = planted_classifier()
    images, labels = planted_images()
    floats = images.float() / 255
    others = images_of_others(floats, labels, classifier.predict(floats).argmax(1), CLASSES)
    families = {"patch": PatchFamily(), "additive": AdditiveFamily(), "warp": WarpFamily()}
    results = {kind: (family, KindResults()) for kind, family in families.items()}
    search_targets(Searches(classifier, seed=0, progress=Silent()), results, others, SETTINGS)
    return {kind: result for kind, (_, result) in results.items()}


def test_of_few_classes_the_smallest_patches_go_on_from_where_they_ended(monkeypatch):
    results = searched(CLASSES, monkeypatch)
    assert {kind: len(result.targets) for kind, result in results.items()} == dict.fromkeys(results, CLASSES)
    patch = results["patch"]
    sizes = {t: i.size for t, i in patch.targets.items()}
    assert set(patch.refined_targets) == set(sorted(sizes, key=sizes.__getitem__)[: SETTINGS.smallest])
    assert all(patch.refined_targets[t].success >= 0.95 for t in patch.refined_targets)
    assert not results["additive"].refined_targets
    assert not results["warp"].refined_targets


def test_of_many_the_oddest_go_on_in_both_kinds_from_where_they_ended(monkeypatch):
    results = searched(CLASSES - 1, monkeypatch)
    patch, additive = results["patch"], results["additive"]
    assert set(patch.refined_targets) == set(additive.refined_targets)
    for result in (patch, additive):
        values = target_values(KindResults(targets=result.targets))
        assert max(values, key=values.__getitem__) in result.refined_targets
    assert len(patch.refined_targets) == SETTINGS.refined
    assert not results["warp"].refined_targets, "it is judged alone"
    shrunk = [patch.refined_targets[t].size / patch.targets[t].size for t in patch.refined_targets]
    assert max(shrunk) < 1.2, "the search went on, and did not begin anew"


@pytest.mark.parametrize(("many", "images"), [(CLASSES, 3), (CLASSES - 1, 16)])
def test_kinds_have_searches_of_their_own_unless_there_are_many_classes(many, images, monkeypatch):
    shown = {}

    def noted(self, what, family, problems, budget):
        shown.setdefault(family.kind, budget.images)
        return {}

    monkeypatch.setattr(targets, "MANY", many)
    monkeypatch.setattr(Searches, "run", noted)
    settings = replace(SETTINGS, of_few={"warp": Budget(steps=5, images=3)})
    families = {"patch": PatchFamily(), "warp": WarpFamily()}
    results = {kind: (family, KindResults()) for kind, family in families.items()}
    others = {t: torch.zeros(4, 1, 8, 8) for t in range(CLASSES)}
    search_targets(Searches(planted_classifier(), seed=0, progress=Silent()), results, others, settings)
    assert shown == {"patch": 16, "warp": images}


def test_an_image_that_is_sent_to_a_class_anyway_is_no_part_of_the_search_into_it():
    images = torch.arange(4.0).view(4, 1, 1, 1)
    labels, answers = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 0])
    found = images_of_others(images, labels, answers, 3)
    assert {t: x.flatten().tolist() for t, x in found.items()} == {0: [2], 1: [0, 3], 2: [0, 1, 2]}
