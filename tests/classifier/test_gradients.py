"""Passes with gradients that fit into memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tiny_networks import random_images, tiny_classifier
from untrojan.classifier import Classifier, as_found
from untrojan.classifier.classifier import PASS_BYTES
from untrojan.classifier.gradients import input_gradient
from untrojan.detection.additive import AdditiveFamily
from untrojan.detection.inversion import Budget, Problem, invert


@pytest.mark.parametrize("width", [None, 1, 4, 10, 99])
def test_pieces_pull_as_the_whole_does(width: int | None) -> None:
    classifier, images = tiny_classifier(), random_images(10, seed=1).float() / 255
    labels, weights = torch.arange(10) % 5, torch.rand(10)
    sizes: list[int] = []
    classifier.module.register_forward_hook(lambda _m, inputs, _o: sizes.append(len(inputs[0])))
    classifier.images_per_pass = width

    def loss(logits: Tensor, some: slice) -> Tensor:
        return weights[some] * functional.cross_entropy(logits, labels[some], reduction="none")

    with as_found(classifier):
        logits, losses, gradient = input_gradient(classifier, images, loss, scale=4.0)
        assert max(sizes) == min(width or 10, 10)
        whole = images.clone().requires_grad_(True)
        expected = classifier(whole)
        each = loss(expected, slice(None))
        (pull,) = torch.autograd.grad(each.sum() / 4, whole)
    assert torch.allclose(logits, expected, atol=1e-6)
    assert torch.allclose(losses, each, atol=1e-6)
    assert torch.allclose(gradient, pull, atol=1e-6)


def test_what_an_image_takes_is_measured() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 256, 5))
    classifier = Classifier(module.requires_grad_(False).eval())
    assert classifier.images_per_pass is None
    classifier.require_gradient(torch.rand(2, 3, 16, 16))
    each = 8 * 16 * 16 * 4  # what ReLU and Tanh put out is kept, and no weight
    assert classifier.images_per_pass is not None
    assert PASS_BYTES // (3 * each) <= classifier.images_per_pass <= PASS_BYTES // (2 * each)


def test_a_trigger_is_the_same_from_smaller_passes() -> None:
    found = []
    for width in (None, 7):
        classifier, images = tiny_classifier(), random_images(24, seed=2).float() / 255
        classifier.images_per_pass = width
        with as_found(classifier):
            problems = [Problem(images, target) for target in (1, 2)]
            generator = torch.Generator().manual_seed(0)
            found.append(
                invert(
                    classifier, AdditiveFamily(), problems, Budget(steps=12, images=20, level=0.1), generator=generator
                )
            )
    for whole, pieces in zip(*found, strict=True):
        assert whole.trigger is not None
        assert pieces.size == pytest.approx(whole.size, rel=1e-3)
