"""A network without its normalisations answers the same, and has them again afterwards."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiny_networks import random_images, settled
from untrojan import pipeline
from untrojan.classifier import Classifier, as_found, folding
from untrojan.classifier.folding import folded
from untrojan.classifier.gradients import input_gradient
from untrojan.victims import ARCHITECTURES


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Head(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Twice(nn.Module):
    """What the convolution returns is used without the normalisation, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(2, 5), nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return (self.norm(y) + y.abs()).mean((2, 3))


class Reading(Twice):
    """Its own code asks for the running mean."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = (self.norm(self.conv(x)) + self.norm.running_mean.view(-1, 1, 1)).mean((2, 3))
        return y


class Shared(Twice):
    """One normalisation after two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.other = conv(2, 5)

    def forward(self, x: Tensor) -> Tensor:
        return (self.norm(self.conv(x)) * self.norm(self.other(x))).mean((2, 3))


class Named(nn.Module):
    """The same layers under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(2, 5), nn.BatchNorm2d(5)
        self.both = nn.Sequential(self.conv, self.norm, Head())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.both(x)
        return y


class Absolute(nn.Conv2d):
    """A convolution that does more."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).abs()


def plain() -> nn.Module:
    return nn.Sequential(conv(2, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.Sequential(conv(4, 5), nn.BatchNorm2d(5)), Head())


WHOLLY: dict[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "without gamma": lambda: nn.Sequential(conv(2, 5), nn.BatchNorm2d(5, affine=False), Head()),
    "groups": lambda: nn.Sequential(nn.Conv2d(2, 6, 3, 2, groups=2, bias=False), nn.BatchNorm2d(6), nn.ReLU(), Head()),
}
NOT_AT_ALL: dict[str, Callable[[], nn.Module]] = {
    "in place": lambda: nn.Sequential(conv(2, 5), nn.ReLU(inplace=True), nn.BatchNorm2d(5), Head()),
    "before": lambda: nn.Sequential(nn.BatchNorm2d(2), conv(2, 5), Head()),
    "no statistics": lambda: nn.Sequential(conv(2, 5), nn.BatchNorm2d(5, track_running_stats=False), Head()),
    "subclass": lambda: nn.Sequential(Absolute(2, 5, 3), nn.BatchNorm2d(5), Head()),
    "twice": Twice,
    "reading": Reading,
    "shared": Shared,
    "named": Named,
}


def classifier_of(make: Callable[[], nn.Module], statistics: bool = True) -> Classifier:
    return Classifier(settled(make()) if statistics else make().eval(), mean=[0.4, 0.5], std=[0.3, 0.2])


def answers(classifier: Classifier) -> tuple[Tensor, Tensor]:
    images = random_images(20, seed=3).float() / 255
    logits, _, gradient = input_gradient(classifier, images, lambda logits, _: logits[:, 0] - logits[:, 1])
    return logits, gradient


def norms_called(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> int:
    calls: list[int] = []
    real = nn.functional.batch_norm

    def counted(*arguments: Any, **more: Any) -> Tensor:
        calls.append(1)
        return real(*arguments, **more)

    monkeypatch.setattr(nn.functional, "batch_norm", counted)
    classifier(torch.rand(1, 2, 4, 4))
    monkeypatch.undo()
    return len(calls)


@pytest.mark.parametrize("name", [*WHOLLY, *NOT_AT_ALL])
def test_answers_and_gradients_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = classifier_of((WHOLLY | NOT_AT_ALL)[name], statistics=name != "no statistics")
    layers, state = list(classifier.module.named_modules()), {k: v.clone() for k, v in classifier.state().items()}
    images = random_images(20, seed=3).float() / 255
    with as_found(classifier):
        expected, usual = answers(classifier), norms_called(classifier, monkeypatch)
        with folded(classifier, images):
            now, left = answers(classifier), norms_called(classifier, monkeypatch)
    assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-4) for a, b in zip(now, expected, strict=True))
    assert left == (0 if name in WHOLLY else usual)
    assert usual >= 1
    assert list(classifier.module.named_modules()) == layers
    assert all(torch.equal(value, state[key]) for key, value in classifier.state().items())


@pytest.mark.parametrize("spec", ["resnet18", "mobilenet", "vgg16_bn"])
def test_a_whole_network_has_none_left(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier(ARCHITECTURES[spec](width=4, classes=3).eval())
    images = torch.rand(4, 3, 32, 32)
    with as_found(classifier):
        expected = classifier(images)
        with folded(classifier, images):
            monkeypatch.setattr(nn.functional, "batch_norm", lambda *_: pytest.fail("a normalisation was called"))
            assert torch.allclose(classifier(images), expected, atol=1e-5, rtol=1e-4)


def test_layers_are_put_back_after_an_exception() -> None:
    classifier = classifier_of(plain)
    layers = list(classifier.module.named_modules())

    def interrupted() -> None:
        with as_found(classifier), folded(classifier, torch.rand(2, 2, 4, 4)):
            assert isinstance(classifier.module.get_submodule("1"), nn.Identity)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(classifier.module.named_modules()) == layers


@pytest.mark.parametrize("place", ["0", "1"])
def test_a_layer_with_a_hook_stays(place: str) -> None:
    classifier, seen = classifier_of(plain), []
    classifier.module.get_submodule(place).register_forward_hook(lambda *_: seen.append(1))
    with as_found(classifier), folded(classifier, torch.rand(2, 2, 4, 4)):
        assert isinstance(classifier.module.get_submodule("1"), nn.BatchNorm2d)
        assert isinstance(classifier.module.get_submodule("3.1"), nn.Identity)
        before = len(seen)
        classifier(torch.rand(1, 2, 4, 4))
    assert len(seen) == before + 1


def test_a_scan_passes_no_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Conv2d(5, 5, 1), nn.BatchNorm2d(5), Head()).eval()
    classifier, labels = Classifier(network), torch.arange(50) % 5
    with torch.no_grad():
        network[0].weight.copy_(8 * torch.eye(5).view(5, 5, 1, 1))  # each class has a colour of its own
    images = torch.rand(50, 5, 4, 4) / 2
    images[torch.arange(50), labels] += 0.4
    inside: list[bool] = []
    real = pipeline.search

    def spied(*arguments: Any, **more: Any) -> Any:
        inside.append(isinstance(network[1], nn.Identity))
        return real(*arguments, **more)

    monkeypatch.setattr(pipeline, "search", spied)
    report = pipeline.scan(classifier, images, labels, budget=2.0)
    assert inside == [True]
    assert report.cost.images_forward_backward > 0
    assert isinstance(network[1], nn.BatchNorm2d)


class Peculiar(Twice):
    """What its code does with its layers does not bear to be looked at, or answers otherwise where gradients are on."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "copies":
            return self.norm(copy.deepcopy(self.conv)(x)).mean((2, 3))
        if self.how == "training flag":
            self.conv.train()
        y = self.norm(self.conv(x))
        if self.how == "gradients" and torch.is_grad_enabled():
            y = y * self.norm.weight.abs().sum()
        return y.mean((2, 3)) * (2e-4 if self.how == "faint" else 1.0)


@pytest.mark.parametrize("how", ["copies", "training flag", "gradients"])
def test_peculiar_networks_are_left_as_they_are(how: str) -> None:
    classifier = classifier_of(lambda: Peculiar(how))
    with as_found(classifier):
        expected = answers(classifier)
        with folded(classifier, torch.rand(20, 2, 4, 4)):
            assert isinstance(classifier.module.norm, nn.BatchNorm2d)
            now = answers(classifier)
    assert all(torch.equal(a, b) for a, b in zip(now, expected, strict=True))


def test_small_logits_are_compared_as_closely_as_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = classifier_of(lambda: Peculiar("faint"))
    real = folding.fuse_conv_bn_eval

    def wrong(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Module:
        made = real(conv, norm)
        made.weight.data *= 1.01
        return made

    monkeypatch.setattr(folding, "fuse_conv_bn_eval", wrong)
    with as_found(classifier), folded(classifier, torch.rand(20, 2, 4, 4)):
        assert isinstance(classifier.module.norm, nn.BatchNorm2d)


def test_a_layer_whose_forward_was_replaced_stays() -> None:
    classifier, calls = classifier_of(plain), []
    norm = classifier.module.get_submodule("1")
    own = norm.forward
    norm.forward = lambda x: (calls.append(1), own(x))[1]  # type: ignore[method-assign]
    with as_found(classifier), folded(classifier, torch.rand(2, 2, 4, 4)):
        before = len(calls)
        classifier(torch.rand(1, 2, 4, 4))
    assert len(calls) == before + 1


def test_layers_are_put_back_though_that_is_interrupted() -> None:
    class Interrupting(dict[str, nn.Module | None]):
        times = 0

        def __setitem__(self, key: str, value: nn.Module | None) -> None:
            super().__setitem__(key, value)
            self.times += 1
            if self.times == 2:
                raise KeyboardInterrupt

    layers = [nn.Identity() for _ in range(3)]
    modules = Interrupting()
    slots = [(modules, str(i), layer, nn.Identity()) for i, layer in enumerate(layers)]
    with pytest.raises(KeyboardInterrupt):
        folding._put_back(slots)
    assert list(modules.values()) == layers


@pytest.mark.parametrize("name", ["in place", "before", "subclass", "shared", "named"])
def test_what_may_not_be_folded_is_not_even_tried(name: str) -> None:
    """That answers would differ is the last resort."""
    classifier = classifier_of(NOT_AT_ALL[name])
    with as_found(classifier), torch.no_grad():
        assert folding._pairs(classifier, torch.rand(2, 2, 4, 4)) == []


class Forked(Twice):
    """Two normalisations of what one convolution returns, and a pair of layers after them."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.after = nn.BatchNorm2d(5), nn.Sequential(conv(5, 4), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z: Tensor = self.after(self.norm(y).relu() - self.second(y).relu()).mean((2, 3))
        return z


def test_a_convolution_with_two_normalisations_keeps_both_and_others_are_folded() -> None:
    classifier = classifier_of(Forked)
    images = torch.rand(20, 2, 4, 4)
    with as_found(classifier):
        expected = answers(classifier)
        with folded(classifier, images):
            assert [type(m).__name__ for m in (classifier.module.norm, classifier.module.second)] == ["BatchNorm2d"] * 2
            assert isinstance(classifier.module.get_submodule("after.1"), nn.Identity)
            now = answers(classifier)
    assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-4) for a, b in zip(now, expected, strict=True))


def test_nothing_is_hooked_inside() -> None:
    classifier = classifier_of(plain)
    with as_found(classifier), folded(classifier, torch.rand(2, 2, 4, 4)):
        assert not any(layer._forward_hooks for layer in classifier.module.modules())
        assert not any(layer.training for layer in classifier.module.modules())
