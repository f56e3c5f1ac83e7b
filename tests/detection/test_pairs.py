"""Which pairs go on, and on what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planted import CLASSES, planted_classifier, planted_images
from untrojan.detection.evidence import KindResults
from untrojan.detection.inversion import Budget
from untrojan.detection.margins import log_margins
from untrojan.detection.pairs import PairSettings, oddest, search_pairs
from untrojan.detection.patch import PatchFamily
from untrojan.detection.search import Searches
from untrojan.progress import Silent

pairs = st.tuples(st.integers(0, 4), st.integers(0, 4))
kinds = st.lists(st.dictionaries(pairs, st.floats(-5, 5)), max_size=3)


@given(kinds, st.integers(0, 12))
def test_the_oddest_are_the_best_of_every_kind(values, count):
    chosen = oddest(values, count)
    every = {pair for kind in values for pair in kind}
    assert len(chosen) == len(set(chosen)) == min(count, len(every))
    for kind in values:
        share = count // max(1, len(values))
        assert set(sorted(kind, key=lambda p: -kind[p])[:share]) <= set(chosen), "an equal share at least"


@pytest.fixture(scope="module")
def searched():
    classifier = planted_classifier()
    images, labels = planted_images()
    floats = images.float() / 255
    sources = {c: floats[labels == c] for c in range(CLASSES)}
    margins = log_margins(classifier, sources, CLASSES)
    results = {"patch": KindResults(), "other": KindResults()}
    screening = {"patch": Budget(steps=40, images=6), "other": Budget(steps=30, images=6)}
    own = {kind: (PatchFamily(), result) for kind, result in results.items()}
    searches = Searches(classifier, seed=0, progress=Silent())
    search_pairs(searches, own, sources, margins, PairSettings(screening=screening, refined=5))
    return classifier, sources, margins, results


def test_every_pair_is_screened_and_the_same_few_go_on_in_every_kind(searched):
    _, _, _, results = searched
    assert len(results["patch"].pairs) == CLASSES * (CLASSES - 1)
    assert len(results["patch"].refined) == 5
    assert set(results["patch"].refined) == set(results["other"].refined)
    assert not results["patch"].sources


def test_a_refined_trigger_works_on_the_class_and_not_only_on_the_images_it_was_screened_with(searched):
    classifier, sources, _, results = searched
    for (source, target), found in results["patch"].refined.items():
        if found.trigger is not None:
            answers = classifier.predict(found.trigger.stamp(sources[source])).argmax(1)
            assert float((answers == target).float().mean()) > 0.6


def test_many_classes_are_searched_by_source(searched):
    classifier, sources, margins, _ = searched
    result = KindResults()
    settings = PairSettings(most=10, sources=Budget(steps=5, images=4, level=0.9))
    search_pairs(
        Searches(classifier, seed=0, progress=Silent()), {"patch": (PatchFamily(), result)}, sources, margins, settings
    )
    assert len(result.sources) == CLASSES
    assert not result.pairs
    assert not result.refined
