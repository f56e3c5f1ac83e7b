"""The search, on a network whose smallest triggers are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from planted import SIDE, planted_classifier, planted_images
from untrojan.classifier import Classifier, as_found
from untrojan.detection.additive import AdditiveFamily
from untrojan.detection.inversion import Budget, OutOfTimeError, Problem, invert
from untrojan.detection.patch import PatchFamily
from untrojan.detection.plan import FAMILIES
from untrojan.detection.warp import WarpFamily
from untrojan.triggers import AdditiveTrigger, PatchTrigger, WarpTrigger

BUDGET = Budget(steps=80, images=8)


class Corner(nn.Module):
    """Class 1 if pixel (0, 0) exceeds 0.4; nothing else matters."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        evidence = 50 * x[:, 0, 0, 0] - 20
        return torch.stack([-evidence, evidence], 1)


def search(classifier, family, problems, budget=BUDGET, seed=0):
    with as_found(classifier):
        return invert(classifier, family, problems, budget, generator=torch.Generator().manual_seed(seed))


def test_the_additive_search_finds_the_closed_form():
    images = torch.zeros(8, 1, 4, 4)
    found = search(Classifier(Corner()), AdditiveFamily(), [Problem(images, 1)], Budget(steps=150, images=8))[0]
    assert isinstance(found.trigger, AdditiveTrigger)
    assert found.size == pytest.approx(0.4, rel=0.15)
    assert int(found.trigger.delta.abs().flatten().argmax()) == 0


def test_the_patch_search_finds_the_pixel():
    images = torch.rand(8, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 0.2
    found = search(Classifier(Corner()), PatchFamily(), [Problem(images, 1)], Budget(steps=150, images=8))[0]
    assert isinstance(found.trigger, PatchTrigger)
    assert found.size is not None
    assert found.size < 2
    assert int(found.trigger.mask.flatten().argmax()) == 0


@pytest.mark.parametrize("family", [PatchFamily(), AdditiveFamily()])
def test_a_short_search_gets_further_in_larger_steps(family):
    classifier = planted_classifier()
    images, labels = planted_images(8)
    problems = [Problem(images[labels == 1].float() / 255, 2)]
    sizes = [
        search(classifier, family, problems, Budget(steps=25, images=8, pace=pace, cost=cost))[0].size
        for pace, cost in ((1.0, 1.0), (2.5, 5.0))
    ]
    assert sizes[1] is not None
    assert sizes[0] is None or sizes[1] < 0.8 * sizes[0]


def test_a_higher_cost_at_first_ends_nearer_to_the_smallest():
    images, labels = planted_images(8)
    problems = [Problem(images[labels == 1].float() / 255, 2)]
    cheap, dear = (
        search(planted_classifier(), PatchFamily(), problems, Budget(steps=25, images=8, cost=cost))[0].size
        for cost in (0.2, 20.0)
    )
    assert cheap is not None
    assert dear is not None
    assert dear < 0.8 * cheap


def slide(images):
    """The same images a pixel lower: in the planted network the row is the class."""
    return images.roll(1, 2)


def test_the_warp_search_finds_a_shift():
    """Rows tell the classes, so that the smallest warp from one class to the next moves its row by one pixel."""
    images, labels = planted_images(8)
    x = images[labels == 1].float() / 255
    found = search(planted_classifier(strength=0), WarpFamily(), [Problem(x, 2)], Budget(steps=150, images=8))[0]
    assert isinstance(found.trigger, WarpTrigger)
    assert planted_classifier(strength=0).predict(slide(x)).argmax(1).eq(2).all()
    assert planted_classifier(strength=0).predict(found.trigger.stamp(x)).argmax(1).eq(2).all()
    assert found.size < 1, "only the rows that are looked at need to move"


def test_a_warp_moves_and_is_mirrored_with_the_image():
    family = WarpFamily()
    cells = [p[0] * 20 for p in family.start(1, (1, 12, 12), torch.Generator().manual_seed(1))]
    trigger = family.trigger(cells)
    images = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(2))
    mirrored = family.moved(trigger, True, 0, 0).apply(images.flip(-1)).flip(-1)
    assert torch.allclose(mirrored, trigger.apply(images), atol=1e-5)
    shifted = family.moved(trigger, False, 1, -1).apply(images.roll((1, -1), (2, 3))).roll((-1, 1), (2, 3))
    inner = (..., slice(3, -3), slice(3, -3))
    assert torch.allclose(shifted[inner], trigger.apply(images)[inner], atol=1e-5)


def test_a_search_is_given_up_at_its_end_time():
    images = torch.zeros(8, 1, 4, 4)
    with as_found(classifier := Classifier(Corner())), pytest.raises(OutOfTimeError):
        invert(classifier, PatchFamily(), [Problem(images, 1)], BUDGET, generator=torch.Generator(), ends=0.0)


@pytest.mark.parametrize("kind", ["patch", "additive"])
def test_each_result_reaches_its_level_on_its_images(kind):
    classifier = planted_classifier()
    images, labels = planted_images(8)
    sets = [images[labels == s].float() / 255 for s in (0, 1, 2)]
    for inversion, x in zip(search(classifier, FAMILIES[kind](), [Problem(x, 3) for x in sets]), sets, strict=True):
        assert inversion.trigger is not None
        stamped = inversion.trigger.apply(x).clamp(0, 1)
        assert (classifier.predict(stamped).argmax(1) == 3).float().mean() >= 0.99
        assert inversion.size == pytest.approx(inversion.trigger.size, rel=1e-3)


def test_results_do_not_depend_on_the_company_a_problem_keeps():
    """Rows share passes, never state: with the same starts, one slot or many give the same triggers."""
    classifier = planted_classifier()
    images, labels = planted_images(8)
    x = [images[labels == s].float() / 255 for s in (0, 1, 2, 4)]
    start = PatchTrigger(torch.full((1, SIDE, SIDE), 0.3), torch.full((1, SIDE, SIDE), 0.6))
    problems = [Problem(images, 3, start=start) for images in x]
    together = search(classifier, PatchFamily(), problems)
    alone = search(classifier, PatchFamily(), problems, Budget(steps=80, images=8, batch=8))
    for a, b in zip(together, alone, strict=True):
        assert a.size == pytest.approx(b.size, rel=1e-2)


def test_results_keep_the_order_of_the_problems():
    classifier = planted_classifier()
    images, labels = planted_images(8)
    x = images[labels == 0].float() / 255
    found = search(classifier, PatchFamily(), [Problem(x, t) for t in (1, 3, 2)], Budget(steps=60, images=4, batch=8))
    sizes = [f.size or math.inf for f in found]
    assert min(sizes) == sizes[1]


def test_patience_ends_a_search_early():
    classifier = planted_classifier()
    images, labels = planted_images(8)
    problem = Problem(images[labels == 0].float() / 255, 3)
    short = search(classifier, PatchFamily(), [problem], Budget(steps=2000, images=8, patience=5))[0]
    assert short.steps < 2000


def test_what_cannot_be_flipped_has_no_trigger():
    class Stubborn(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([1 + 0 * x.sum((1, 2, 3)), 0 * x.sum((1, 2, 3))], 1)

    found = search(Classifier(Stubborn()), PatchFamily(), [Problem(torch.zeros(4, 1, 4, 4), 1)])[0]
    assert found.trigger is None
    assert found.size is None
    assert found.success == 0


def test_an_allowance_is_used_up_for_conviction():
    classifier = planted_classifier()
    images, labels = planted_images(8)
    x = images[labels == 0].float() / 255
    small, large = search(classifier, AdditiveFamily(), [Problem(x, 3), Problem(x, 3, allowance=1.5)])
    assert small.size is not None
    assert large.size is not None
    assert small.size < large.size
    conviction = [float(classifier.predict(f.trigger.apply(x))[:, 3].mean()) for f in (small, large)]
    assert conviction[1] > conviction[0]


@pytest.mark.parametrize("kind", FAMILIES)
def test_parameters_invert_triggers(kind):
    family = FAMILIES[kind]()
    parameters = [p[0] for p in family.start(1, (3, 5, 5), torch.Generator().manual_seed(0))]
    trigger = family.trigger(parameters)
    again = family.trigger(family.parameters(trigger))
    for name, tensor in trigger.tensors().items():
        assert torch.allclose(tensor, again.tensors()[name], atol=0.03)
    assert family.strengthened(trigger).size >= trigger.size


def test_away_from_all_classes_the_search_finds_the_planted_pixel():
    """Nobody says whom the trigger moves where: the smallest thing that moves all classes is the backdoor's pixel."""
    classifier = planted_classifier()
    images, labels = planted_images(24)
    floats = images.float() / 255
    source = labels != 3
    problem = Problem(floats[source], -1, labels=labels[source])
    (found,) = search(classifier, PatchFamily(), [problem], Budget(steps=150, images=40))
    assert isinstance(found.trigger, PatchTrigger)
    assert int(found.trigger.mask.flatten().argmax()) == 63
    answers = classifier.predict(found.trigger.apply(floats[source]).clamp(0, 1)).argmax(1)
    assert float((answers != labels[source]).float().mean()) > 0.9
    assert set(answers[answers != labels[source]].tolist()) == {3}


def test_problems_with_and_without_a_target_share_a_batch():
    classifier = planted_classifier()
    images, labels = planted_images(8)
    floats = images.float() / 255
    aimed = Problem(floats[labels == 0], 3)
    away = Problem(floats[labels == 0], -1, labels=labels[labels == 0])
    first, second = search(classifier, PatchFamily(), [aimed, away], Budget(steps=60, images=8))
    assert classifier.predict(first.trigger.apply(floats[labels == 0])).argmax(1).eq(3).float().mean() >= 0.99
    assert classifier.predict(second.trigger.apply(floats[labels == 0])).argmax(1).ne(0).float().mean() >= 0.99
