"""Which layers are corrected, and what their neurons are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from contracts.test_contracts import Fingerprint
from tiny_networks import WITHOUT_BATCH_NORM, LayerNorm2d, convolutional, random_images, settled
from untrojan.classifier.classifier import Classifier
from untrojan.classifier.sites import batch_norms, captured, find_sites, require_sites
from untrojan.errors import UnsupportedError
from untrojan.victims.vit import vit

FOUND = {
    "convolutions": {"0": 4, "2": 3},
    "features": {"1": 6, "2": 6, "5": 7},
    "normalisations": {"0": 2, "1": 2, "2": 2, "3": 2},
    "encoder": {"embed": 8, "layer.norm1": 8, "layer.norm2": 8, "layer.linear2": 8},
}
"""The sites of the networks without BatchNorm and their neurons, in the order of a pass."""


@pytest.mark.parametrize("name", WITHOUT_BATCH_NORM)
def test_without_a_batch_norm_the_layers_that_a_pass_calls_but_wide_ones_and_the_last(name: str) -> None:
    classifier = Classifier(settled(WITHOUT_BATCH_NORM[name]()))
    layers = find_sites(classifier, random_images(1))
    assert list(layers) == list(FOUND[name])
    with captured(layers) as outputs:
        classifier(random_images(7))
    assert {key: tuple(value.shape[:2]) for key, value in outputs.items()} == {
        k: (7, c) for k, c in FOUND[name].items()
    }


def test_the_vision_transformer_of_this_package() -> None:
    parts = ["norm1", "mix", "norm2", "linear2"]
    wanted = ["conv1", *(f"blocks.{i}.{part}" for i in range(6) for part in parts), "norm"]
    assert list(find_sites(Classifier(vit(width=16)), torch.rand(1, 3, 8, 8))) == wanted


def test_layers_that_widen_where_there_are_no_others() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 5))
    assert list(find_sites(Classifier(module), random_images(1))) == ["1"]


def test_with_a_batch_norm_nothing_else() -> None:
    module = nn.Sequential(convolutional(), nn.BatchNorm1d(5, track_running_stats=False), nn.LayerNorm(5))
    assert (
        list(find_sites(Classifier(module), random_images(1))) == list(batch_norms(module)) == ["0.1", "0.3.1", "0.6"]
    )


class Odd(nn.Module):
    """Layers that are no sites: one called twice, one never, one that gives a pair, one on images cut to pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.never, self.once = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(32, 6)
        self.pieces, self.turned = nn.LayerNorm(4), nn.LayerNorm(4)
        self.pair = Pair(6, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(x)) + x @ self.never.weight
        x = self.pieces(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        x = self.turned(x.transpose(0, 1)).transpose(0, 1)
        y: Tensor = self.head(self.pair(self.once(x.flatten(1)))[0])
        return y


class Pair(nn.Linear):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x), x


def test_layers_that_are_no_sites() -> None:
    assert list(find_sites(Classifier(settled(Odd())), random_images(5))) == ["once"]


def test_none_at_all() -> None:
    for module in (nn.Sequential(nn.Flatten(), nn.Linear(32, 5)), nn.Flatten()):
        assert find_sites(Classifier(module), random_images(2)) == {}
        with pytest.raises(UnsupportedError, match="no layer to correct"):
            require_sites(Classifier(module), random_images(2))


def test_the_classifier_is_as_found() -> None:
    classifier = Classifier(settled(WITHOUT_BATCH_NORM["encoder"]())).train()
    before = Fingerprint(classifier)
    find_sites(classifier, random_images(2))
    assert before.same_as(Fingerprint(classifier))
    failing = Classifier(nn.Sequential(nn.Conv2d(2, 3, 1), nn.Linear(5, 5)))
    before = Fingerprint(failing)
    with pytest.raises(RuntimeError):
        find_sites(failing, random_images(2))
    assert before.same_as(Fingerprint(failing))


def test_captured_neurons_come_second() -> None:
    tokens, maps = torch.rand(3, 5, 4), torch.rand(3, 4, 6, 6)
    layers = {
        "tokens": nn.LayerNorm(4),
        "channels": LayerNorm2d(4),
        "features": nn.Linear(4, 2),
        "other": nn.Identity(),
    }
    with captured(layers) as outputs, torch.no_grad():
        answers = {"tokens": layers["tokens"](tokens).mT, "channels": layers["channels"](maps)}
        answers |= {"features": layers["features"](tokens[:, 0]), "other": layers["other"](maps)}
    assert all(torch.equal(outputs[name], answers[name]) for name in layers)


def test_captured_leaves_no_hook_after_an_error() -> None:
    layers = batch_norms(convolutional())
    with pytest.raises(ValueError, match="stop"), captured(layers):
        raise ValueError("stop")
    assert not any(layer._forward_hooks for layer in layers.values())
