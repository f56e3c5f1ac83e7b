from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from untrojan.errors import UsageError
from untrojan.victims import ARCHITECTURES
from untrojan.victims.layers import ACTIVATIONS, NORMS, norm
from untrojan.victims.vit import positions

# Parameters of the networks at their papers' width, with 10 classes: ResNet-18 and -34, VGG-16 and PreActResNet-18 as
# their common CIFAR variants have them, MobileNet as in its paper with another classifier.
COUNTS = {
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "preact_resnet18": 11_171_146 + 1_024,  # the last BatchNorm, which the CIFAR variant lacks
    "vgg16_bn": 14_728_266 - 4_224,  # no biases in front of a BatchNorm
    "mobilenet": 3_217_226,
}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
def test_images_become_logits_and_every_parameter_takes_part(name: str, shape: tuple[int, int, int]) -> None:
    size = {"size": shape[1]} if "size" in inspect.signature(ARCHITECTURES[name]).parameters else {}
    network = ARCHITECTURES[name](width=4, classes=7, channels=shape[0], **size)
    logits = network(torch.rand(4, *shape, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (4, 7)
    logits.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_size_is_the_published_one(name: str, count: int) -> None:
    with torch.device("meta"):
        network = ARCHITECTURES[name]()
    assert sum(p.numel() for p in network.parameters()) == count


def test_one_network_has_no_batch_norm() -> None:
    with torch.device("meta"):
        layers = [type(m) for m in ARCHITECTURES["vit"]().modules()]
    assert nn.BatchNorm2d not in layers
    assert nn.LayerNorm in layers


def test_every_place_has_a_position_of_its_own() -> None:
    table = positions(16, 8, 8, torch.device("cpu")).flatten(1).T
    assert table.shape == (64, 16)
    assert float(torch.cdist(table, table).add(9 * torch.eye(64)).min()) > 0.05


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_small_networks_are_made_with_the_layers_that_are_named(norm: str, activation: str) -> None:
    kind = type(ACTIVATIONS[activation]())
    for network in (
        ARCHITECTURES["small_vgg"](width=4, size=12, norm=norm, activation=activation, head="mean", pooling="mean"),
        ARCHITECTURES["small_resnet"](width=4, norm=norm, activation=activation, pre=1, widen=2, depth=2),
    ):
        kinds = {type(m) for m in network.modules()}
        assert kind in kinds
        assert (nn.BatchNorm2d in kinds) == (norm == "batch")
        assert (nn.GroupNorm in kinds) == (norm in ("group", "layer", "instance"))
        assert network.eval()(torch.rand(2, 3, 12, 12)).shape == (2, 10)


def test_a_layer_that_there_is_not_is_a_usage_error() -> None:
    for wrong in ({"norm": "x"}, {"activation": "x"}, {"pooling": "x"}):
        with pytest.raises(UsageError, match="'x' is not one of"):
            ARCHITECTURES["small_vgg"](**wrong)


def test_groups_divide_the_channels_and_one_layer_has_all_of_them() -> None:
    assert [norm("group", channels).num_groups for channels in (4, 8, 24, 30)] == [1, 1, 3, 3]
    assert norm("layer", 6).num_groups == 1
    assert norm("instance", 6).num_groups == 6
