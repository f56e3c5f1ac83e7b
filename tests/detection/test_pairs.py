"""Which pairs go on, and on what."""

from __future__ import annotations

import pytest
import torch

from planted import CLASSES, planted_classifier, planted_images
from untrojan.detection.blend import BlendFamily
from untrojan.detection.inversion import Budget
from untrojan.detection.margins import log_margins
from untrojan.detection.pairs import PairSettings, search_pairs, search_singles
from untrojan.detection.patch import PatchFamily
from untrojan.detection.results import KindResults
from untrojan.detection.shares import Searches
from untrojan.progress import Silent


@pytest.fixture(scope="module")
def searched():
    classifier = planted_classifier()
    images, labels = planted_images()
    floats = images.float() / 255
    sources = {c: floats[labels == c] for c in range(CLASSES)}
    answers = {c: classifier.predict(x).argmax(1) for c, x in sources.items()}
    margins = log_margins(classifier, sources, CLASSES)
    results = {"patch": KindResults(), "other": KindResults()}
    screening = {"patch": Budget(steps=40, images=6), "other": Budget(steps=30, images=6)}
    own = {kind: (PatchFamily(), result) for kind, result in results.items()}
    searches = Searches(classifier, seed=0, progress=Silent())
    search_pairs(searches, own, sources, answers, margins, PairSettings(screening=screening, refined=5))
    return classifier, sources, answers, margins, results


def test_every_pair_is_screened_and_the_same_few_go_on_in_every_kind(searched):
    *_, results = searched
    assert len(results["patch"].pairs) == CLASSES * (CLASSES - 1)
    assert len(results["patch"].refined) == 5
    assert set(results["patch"].refined) == set(results["other"].refined)
    assert not results["patch"].sources


def test_a_refined_trigger_works_on_the_class_and_not_only_on_the_images_it_was_screened_with(searched):
    classifier, sources, *_, results = searched
    for (source, target), found in results["patch"].refined.items():
        if found.trigger is not None:
            answers = classifier.predict(found.trigger.stamp(sources[source])).argmax(1)
            assert float((answers == target).float().mean()) > 0.6


def test_many_classes_are_searched_by_source(searched):
    classifier, sources, answers, margins, _ = searched
    result = KindResults()
    settings = PairSettings(most=10, sources=Budget(steps=5, images=4, level=0.9))
    own = {"patch": (PatchFamily(), result)}
    search_pairs(Searches(classifier, seed=0, progress=Silent()), own, sources, answers, margins, settings)
    assert len(result.sources) == CLASSES
    assert not result.pairs
    assert not result.refined


@pytest.mark.parametrize("most", [10, 400])
def test_an_image_that_is_wrong_without_a_trigger_is_no_small_trigger(searched, most):
    """All of class 1 are sent to 2, and all but two of class 0 to 4: no trigger of size 0 is found for that."""
    classifier, sources, answers, margins, _ = searched
    answers = dict(answers)
    answers[1] = torch.full_like(answers[1], 2)
    answers[0] = answers[0].where(torch.arange(len(answers[0])) < 2, 4)
    result = KindResults()
    screening = {"patch": Budget(steps=5, images=6)}
    settings = PairSettings(most=most, screening=screening, sources=Budget(steps=5, images=4), refined=20)
    own = {"patch": (PatchFamily(), result)}
    search_pairs(Searches(classifier, seed=0, progress=Silent()), own, sources, answers, margins, settings)
    if most == 10:
        assert set(result.sources) == {2, 3, 4}
    else:
        assert (1, 2) not in result.pairs
        assert (1, 2) not in result.refined
        assert {(1, 0), (0, 1)} <= set(result.pairs)


def test_the_most_single_pairs_go_on_from_where_they_were(searched, monkeypatch):
    classifier, sources, answers, margins, results = searched
    own = {}
    for kind, done in results.items():
        spills = dict.fromkeys(done.refined, 0.9)
        own[kind] = PatchFamily(), KindResults(pairs=done.pairs, refined=done.refined, spills=spills)
    sparing = next(iter(results["patch"].refined))
    own["other"][1].spills[sparing] = 1e-4
    searches = Searches(classifier, seed=0, progress=Silent())
    begun = []
    run = searches.run

    def noted(what, family, problems, budget):
        begun.append({pair: problem.start for pair, problem in problems.items()})
        return run(what, family, problems, budget)

    monkeypatch.setattr(searches, "run", noted)
    search_singles(searches, own, sources, answers, margins, PairSettings(singled=2))
    singled = own["patch"][1].singled
    assert len(singled) == 2
    assert sparing in singled, "in whatever kind it stands out"
    assert set(singled) == set(own["other"][1].singled)
    assert begun == [{pair: result.refined[pair].trigger for pair in singled} for _, result in own.values()]


def test_where_none_go_on_there_are_no_blends_either(searched):
    classifier, sources, answers, margins, results = searched
    done = results["patch"]
    patch = KindResults(pairs=done.pairs, refined=done.refined, spills=dict.fromkeys(done.refined, 0.1))
    own = {"patch": (PatchFamily(), patch), "blend": (BlendFamily(), KindResults())}
    search_singles(
        Searches(classifier, seed=0, progress=Silent()), own, sources, answers, margins, PairSettings(singled=0)
    )
    assert not patch.singled
    assert not own["blend"][1].singled


def test_all_refined_pairs_are_searched_anew_as_blends(searched):
    classifier, sources, answers, margins, results = searched
    done = results["patch"]
    patch = KindResults(pairs=done.pairs, refined=done.refined, spills=dict.fromkeys(done.refined, 0.1))
    own = {"patch": (PatchFamily(), patch), "blend": (BlendFamily(), KindResults())}
    settings = PairSettings(singled=1, even=Budget(steps=60, images=8, level=0.9, patience=60))
    search_singles(Searches(classifier, seed=0, progress=Silent()), own, sources, answers, margins, settings)
    blends = own["blend"][1].singled
    assert set(blends) == set(done.refined)
    assert len(patch.singled) == 1
    for (source, target), found in blends.items():
        stamped = found.trigger.stamp(sources[source])
        assert float((classifier.predict(stamped).argmax(1) == target).float().mean()) > 0.6
