"""Blends: their search, and scans of networks that only a blend gives away."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import untrojan
from untrojan.classifier import Classifier, as_found
from untrojan.detection.blend import BlendFamily
from untrojan.detection.features import by_target, lead, mapping_hypothesis
from untrojan.detection.inversion import Budget, Problem, invert
from untrojan.detection.plan import ScanSettings
from untrojan.triggers import BlendTrigger

SHAPE = (1, 8, 8)
CLASSES = 6


class Mean(nn.Module):
    """Class 1 if the image's mean exceeds a threshold."""

    def __init__(self, threshold: float):
        super().__init__()
        self.threshold = threshold

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        evidence = 50 * (x.mean((1, 2, 3)) - self.threshold)
        return torch.stack([-evidence, evidence], 1)


def smallest(network: nn.Module, images: torch.Tensor, seed: int = 0, start: BlendTrigger | None = None):
    with as_found(classifier := Classifier(network.eval())):
        generator = torch.Generator().manual_seed(seed)
        budget = Budget(steps=100, images=8, patience=100)
        return invert(classifier, BlendFamily(), [Problem(images, 1, start=start)], budget, generator=generator)[0]


def test_the_search_finds_the_closed_form_from_any_start() -> None:
    """A white picture moves the mean by the ratio."""
    images = torch.zeros(8, *SHAPE)
    known = BlendTrigger(torch.tensor([0.9]), torch.full(SHAPE, 0.5))
    for found in (smallest(Mean(0.25), images, seed) for seed in range(3)):
        assert found.size == pytest.approx(0.25, rel=0.1)
        assert float(found.trigger.pattern.mean()) > 0.9
    assert smallest(Mean(0.25), images, start=known).size == pytest.approx(0.25, rel=0.1)


def test_a_trigger_and_its_parameters_are_one_another() -> None:
    family = BlendFamily()
    drawn = family.start(1, SHAPE, torch.Generator().manual_seed(0))
    trigger = family.trigger([p[0] for p in drawn])
    again = family.trigger(family.parameters(trigger))
    assert torch.allclose(again.pattern, trigger.pattern, atol=1e-4)
    assert again.size == pytest.approx(trigger.size, rel=1e-4)
    assert float(family.size(drawn)[0]) == pytest.approx(trigger.size)
    images = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(family.stamp(drawn, images[None])[0], trigger.apply(images), atol=1e-6)


def test_it_is_mirrored_and_shifted_with_the_image_and_made_stronger() -> None:
    family = BlendFamily()
    trigger = family.trigger([p[0] for p in family.start(1, SHAPE, torch.Generator().manual_seed(0))])
    images = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1))
    moved = family.moved(trigger, True, 1, -2).apply(images.flip(-1).roll((1, -2), (-2, -1)))
    assert torch.allclose(moved.roll((-1, 2), (-2, -1)).flip(-1), trigger.apply(images), atol=1e-6)
    assert family.strengthened(trigger).size == pytest.approx(2 * trigger.size)
    assert family.strengthened(BlendTrigger(torch.tensor([0.7]), torch.zeros(SHAPE))).size == 1


class Blended(nn.Module):
    """Bright rows tell the classes; a faint picture with as much light as shade sends the class to another.

    ``attack`` [K, K] takes the place of the identity where the picture is there.
    """

    def __init__(self, attack: torch.Tensor, strength: float = 1.0):
        super().__init__()
        picture = torch.rand(SHAPE, generator=torch.Generator().manual_seed(3)) - 0.5
        self.register_buffer("picture", picture - picture.mean((1, 2), keepdim=True))
        self.register_buffer("attack", attack)
        self.strength = strength

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = (x * self.picture).sum((1, 2, 3)) / self.picture.square().sum()
        on = torch.sigmoid(25 * (self.strength * seen - 0.15))[:, None]
        honest = 8 * x[:, 0, :CLASSES].mean(2)
        return (1 - on) * honest + on * honest @ self.attack


def images_of_rows(each: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(CLASSES).repeat(each)
    images = torch.randint(0, 40, (len(labels), *SHAPE), generator=generator)
    bright = torch.randint(190, 230, (len(labels), 8), generator=generator)
    images[torch.arange(len(labels)), 0, labels] = bright
    return images.to(torch.uint8), labels


def features_of(attack: torch.Tensor, strength: float = 1.0) -> tuple[dict[int, float], dict[str, float]]:
    """By class, by how much its blend is smaller than all others'; and what speaks for a mapping."""
    images, labels = images_of_rows()
    classifier = Classifier(Blended(attack, strength).eval())
    report = untrojan.scan(classifier, images, labels, settings=ScanSettings(kinds=("blend",)))
    assert {pair.kind for pair in report.pairs} <= {"blend"}
    return lead(by_target(report.table, "blend")), dict(mapping_hypothesis(report.table).values)


def test_a_faint_picture_into_one_class_is_found() -> None:
    into_2 = torch.zeros(CLASSES, CLASSES)
    into_2[:, 2] = 1
    leads, _ = features_of(into_2)
    assert leads[2] > 0.7 > 0.3 > max(value for target, value in leads.items() if target != 2)


def test_a_faint_picture_from_each_class_to_the_next_is_found() -> None:
    leads, values = features_of(torch.eye(CLASSES).roll(1, 1))
    assert values["blend under"] > 0.7
    assert values["mapping"] > 0.5
    assert max(leads.values()) < 0.3


def test_in_the_same_network_without_it_no_blend_is_small() -> None:
    leads, values = features_of(torch.eye(CLASSES), strength=0)
    assert max(leads.values()) < 0.3
    assert values["blend under"] < 0.3


def test_many_classes_are_not_searched_for_it() -> None:
    settings = ScanSettings()
    assert "blend" in settings.suited_to(20).kinds
    assert settings.suited_to(21).kinds == ("patch", "additive", "warp")
