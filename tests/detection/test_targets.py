"""Which classes go on, and on what."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from planted import CLASSES, planted_classifier, planted_images, planted_trigger
from untrojan.detection import targets
from untrojan.detection.additive import AdditiveFamily
from untrojan.detection.comparisons import target_values
from untrojan.detection.inversion import Budget, Inversion
from untrojan.detection.patch import PatchFamily
from untrojan.detection.results import KindResults
from untrojan.detection.shares import Searches
from untrojan.detection.targets import TargetSettings, begin_again, images_of_others, search_targets
from untrojan.detection.warp import WarpFamily
from untrojan.progress import Silent
from untrojan.triggers import PatchTrigger

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


ALL_TO_THREE = torch.zeros(CLASSES, CLASSES, dtype=torch.int64).index_fill_(1, torch.tensor([3]), 10)


def begun_again(before, probe, sent=ALL_TO_THREE, family=None, refined=None, **changed):
    """What the triggers are after that; before: by class; probe: the only one; sent: where it sends images."""
    images, labels = planted_images()
    floats = images.float() / 255
    others = images_of_others(floats, labels, labels, CLASSES)
    result = KindResults(targets=before, probes={0: probe}, refined_targets=refined or {})
    settings = replace(TargetSettings(), **changed)
    run = Searches(planted_classifier(), seed=0, progress=Silent())
    begin_again(run, family or PatchFamily(), result, others, {0: sent}, settings)
    return result


def sized(size):
    return Inversion(planted_trigger(), size, 1.0, 50)


def test_a_search_that_was_stuck_is_begun_again_where_a_probe_sends_all_to_its_class():
    result = begun_again({t: sized(20.0) for t in range(CLASSES)}, sized(1.0), refined={0: sized(20.0)})
    assert result.targets[3].size < 3
    assert int(result.targets[3].trigger.tensors()["mask"].argmax()) == 63, "the attacker's pixel"
    assert result.refined_targets[3].success >= 0.95, "and is searched on, as the smallest are"
    assert [result.targets[t].size for t in (0, 1, 2, 4)] == [20.0] * 4
    assert set(result.refined_targets) == {0, 3}
    nothing = Inversion(None, None, 0.0, 50)
    assert begun_again({3: nothing}, sized(1.0)).targets[3].size < 3


def test_what_was_searched_on_stays_if_it_is_smaller():
    small = sized(0.01)
    result = begun_again({3: sized(20.0)}, sized(1.0), refined={3: small})
    assert result.targets[3].size < 3
    assert result.refined_targets[3] is small


def test_what_was_searched_on_from_where_it_was_stuck_goes_if_nothing_takes_its_place():
    never = Budget(steps=1, images=24, level=1.1)
    result = begun_again({3: sized(20.0)}, sized(1.0), refined={2: sized(9.0), 3: sized(18.0)}, again={"patch": never})
    assert set(result.refined_targets) == {2}


def test_a_kind_that_is_not_searched_on_is_not():
    assert not begun_again({3: sized(20.0)}, sized(1.0), again={}).refined_targets


@pytest.mark.parametrize(
    ("before", "sent"),
    [
        ({3: sized(1.9)}, ALL_TO_THREE),  # not stuck
        ({3: sized(20.0)}, ALL_TO_THREE + ALL_TO_THREE.roll(1, 1)),  # to two classes
        ({3: sized(20.0)}, torch.zeros(CLASSES, CLASSES)),
        ({2: sized(20.0)}, ALL_TO_THREE),  # never searched: no images of others
    ],
)
def test_otherwise_it_stays_as_it_was(before, sent, monkeypatch):
    asked = []
    monkeypatch.setattr(Searches, "run", lambda self, what, family, problems, budget: asked.append(problems) or {})
    assert begun_again(dict(before), sized(1.0), sent).targets == before
    assert not any(asked)


def test_the_smallest_of_several_probes_is_the_start(monkeypatch):
    starts = []

    def noted(self, what, family, problems, budget):
        starts.extend(problem.start for problem in problems.values())
        return {}

    monkeypatch.setattr(Searches, "run", noted)
    large, small = sized(3.0), replace(sized(1.0), trigger=PatchTrigger(*planted_trigger().tensors().values()))
    result = KindResults(targets={3: sized(20.0)}, probes={0: large, 1: small, 2: Inversion(None, None, 0.0, 9)})
    others = {3: torch.zeros(4, 1, 8, 8)}
    run = Searches(planted_classifier(), seed=0, progress=Silent())
    begin_again(run, PatchFamily(), result, others, {0: ALL_TO_THREE, 1: ALL_TO_THREE}, TargetSettings())
    assert len(starts) == 1
    assert starts[0] is small.trigger


def test_what_is_found_again_counts_only_if_it_is_smaller(monkeypatch):
    monkeypatch.setattr(
        Searches, "run", lambda self, what, family, problems, budget: dict.fromkeys(problems, sized(9.0))
    )
    assert begun_again({3: sized(8.0)}, sized(1.0)).targets[3].size == 8.0
    assert begun_again({3: sized(10.0)}, sized(1.0)).targets[3].size == 9.0


def test_an_image_that_is_sent_to_a_class_anyway_is_no_part_of_the_search_into_it():
    images = torch.arange(4.0).view(4, 1, 1, 1)
    labels, answers = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 0])
    found = images_of_others(images, labels, answers, 3)
    assert {t: x.flatten().tolist() for t, x in found.items()} == {0: [2], 1: [0, 3], 2: [0, 1, 2]}
