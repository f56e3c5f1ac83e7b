"""Where the search for any mapping starts, and that it finds a patch that no pair's search has found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from planted import CLASSES, planted_classifier, planted_images
from untrojan.detection import probes
from untrojan.detection.additive import AdditiveFamily
from untrojan.detection.blend import BlendFamily
from untrojan.detection.inversion import Inversion
from untrojan.detection.patch import TILES, PatchFamily
from untrojan.detection.probes import ProbeSettings, probe
from untrojan.detection.results import KindResults
from untrojan.detection.shares import Searches
from untrojan.detection.warp import WarpFamily
from untrojan.progress import Silent
from untrojan.triggers import PatchTrigger

FLAT = np.zeros((CLASSES, CLASSES))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 30), (1, 5, 9), (1, 2, 3)])
def test_tiles_cover_every_pixel_once(shape):
    tiles = PatchFamily().tiles(shape, torch.Generator().manual_seed(0))
    masks = torch.stack([tile.tensors()["mask"][0] > 0 for tile in tiles])
    assert len(tiles) == min(TILES, shape[1]) * min(TILES, shape[2])
    assert bool((masks.sum(0) == 1).all())
    assert len({tile.sha256() for tile in tiles}) == len(tiles)


def test_kinds_without_a_place_have_no_tiles():
    generator = torch.Generator().manual_seed(0)
    assert [family.tiles((3, 32, 32), generator) for family in (AdditiveFamily(), WarpFamily())] == [[], []]


class Listening(Searches):
    """Remembers what was searched, and from where."""

    def __init__(self, classifier):
        super().__init__(classifier, seed=0, progress=Silent())
        self.ran = {}

    def run(self, what, family, problems, budget):
        self.ran[what] = list(problems.values())
        return super().run(what, family, problems, budget)


def probed(pairs):
    classifier = planted_classifier()
    images, labels = planted_images()
    floats = images.float() / 255
    searches = Listening(classifier)
    result = KindResults(pairs=pairs)
    return searches, probe(searches, PatchFamily(), floats, labels, result, FLAT, ProbeSettings())


def useless():
    """A large patch, as of two classes that are merely alike."""
    shape = planted_images()[0].shape[1:]
    trigger = PatchTrigger(torch.full((1, *shape[1:]), 0.9), torch.full(tuple(shape), 0.5))
    return Inversion(trigger, float(trigger.size), 1.0, 25)


def test_a_part_of_the_image_leads_to_a_patch_that_no_pair_has_found():
    searches, found = probed({(0, 1): useless()})
    assert len(searches.ran["a part to any"]) == TILES**2
    assert len(searches.ran["all classes to any"]) == ProbeSettings().starts
    # The attacker's is one pixel; from the useless one alone the search ends at eight.
    assert min(i.size for i in found.values() if i.size is not None) < 1


def test_of_many_classes_and_from_no_pairs_no_parts_are_tried(monkeypatch):
    searches, _ = probed({})
    assert list(searches.ran) == ["all classes to any"]
    assert [p.start for p in searches.ran["all classes to any"]] == [None] * ProbeSettings().starts
    monkeypatch.setattr(probes, "MANY", CLASSES - 1)
    searches, _ = probed({(0, 1): useless()})
    assert "a part to any" not in searches.ran


def test_a_blend_is_searched_from_one_start_in_its_own_budget():
    images, labels = planted_images()
    searches = Listening(planted_classifier())
    result = KindResults(pairs={(0, 1): useless()})
    found = probe(searches, BlendFamily(), images.float() / 255, labels, result, FLAT, ProbeSettings())
    assert set(found) == {0}
    assert [p.start for p in searches.ran["all classes to any"]] == [None]
    assert found[0].steps <= ProbeSettings().from_anywhere["blend"].steps < ProbeSettings().search.steps


@pytest.mark.parametrize(("classes", "share"), [(3, 0.4 / 0.9), (5, 0.48 / 0.9), (10, 0.6), (43, 0.6)])
@pytest.mark.parametrize("family", [WarpFamily(), BlendFamily()])
def test_of_fewer_classes_as_large_a_share_of_what_one_trigger_could_move(family, classes, share, monkeypatch):
    levels = []

    def noted(self, what, family, problems, budget):
        levels.append(budget.level)
        return {}

    monkeypatch.setattr(Searches, "run", noted)
    searches = Searches(planted_classifier(), seed=0, progress=Silent())
    images, labels = torch.zeros(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64)
    probe(searches, family, images, labels, KindResults(), np.zeros((classes, classes)), ProbeSettings())
    assert levels == [pytest.approx(share)]
