from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from untrojan.classifier.classifier import Classifier
from untrojan.errors import ShapeError, UnsupportedError, UsageError


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(12, 3))


def test_bytes_and_floats_give_the_same_normalised_logits() -> None:
    images = torch.randint(0, 256, (5, 3, 2, 2), dtype=torch.uint8)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    classifier = Classifier(network().eval(), mean=mean, std=std)
    by_hand = torch.stack([(images[:, c] / 255 - mean[c]) / std[c] for c in range(3)], 1)
    assert torch.allclose(classifier(images), classifier.module(by_hand), atol=1e-6)
    assert torch.equal(classifier(images), classifier(images / 255))


def test_without_preprocessing_images_are_as_given() -> None:
    classifier, images = Classifier(network().eval()), torch.rand(5, 3, 2, 2)
    assert torch.equal(classifier(images), classifier.module(images))


def test_predict_is_in_batches_and_leaves_the_mode() -> None:
    classifier, images = Classifier(network()), torch.rand(10, 3, 2, 2)
    assert classifier.training
    logits = classifier.predict(images, batch_size=4)
    assert classifier.training
    assert classifier.module.training
    assert not logits.requires_grad
    assert torch.allclose(logits, classifier.eval()(images), atol=1e-6)


@pytest.mark.parametrize("images", [torch.zeros(3, 2, 2), torch.zeros(1, 3, 2, 2, dtype=torch.int64), [1], None])
def test_what_are_no_images(images: Tensor) -> None:
    with pytest.raises(ShapeError):
        Classifier(network())(images)


def test_images_of_another_shape() -> None:
    with pytest.raises(ShapeError, match="takes images of shape 3x2x2, got 1x2x2"):
        Classifier(network(), input_shape=(3, 2, 2))(torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize("module", [nn.Identity(), nn.LSTM(2, 2)])
def test_a_network_without_logits(module: nn.Module) -> None:
    images = torch.zeros(1, 3, 2, 2)
    if isinstance(module, nn.LSTM):
        module = nn.Sequential(nn.Flatten(2), nn.Flatten(0, 0), nn.Linear(4, 2), module)
    with pytest.raises(UnsupportedError, match=r"must return logits \[N, K\], it returned (torch|tuple)"):
        Classifier(module)(images)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64])
def test_logits_are_real_numbers(dtype: torch.dtype) -> None:
    class Other(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).to(dtype)

    with pytest.raises(UnsupportedError, match=rf"must return logits \[N, K\], it returned {dtype}"):
        Classifier(Other())(torch.zeros(1, 3, 2, 2))


def test_impossible_preprocessing() -> None:
    with pytest.raises(UsageError, match="std must be positive"):
        Classifier(network(), std=[0.0])
    with pytest.raises(UsageError, match="mean has 2 values and std 3"):
        Classifier(network(), mean=[0.0, 0.0], std=[1.0, 1.0, 1.0])
    with pytest.raises(UnsupportedError, match=r"torch\.nn\.Module, got function"):
        Classifier(lambda x: x)  # type: ignore[arg-type]


def test_identity_depends_on_tensors_and_preprocessing_alone() -> None:
    module = network()
    identity = Classifier(module).sha256()
    copy = network()
    copy.load_state_dict(module.state_dict())
    assert Classifier(copy, class_names=["a", "b", "c"]).sha256() == identity
    assert Classifier(copy, mean=[0.5]).sha256() != identity
    once, each = ({"mean": [0.5] * times, "std": [0.25] * times} for times in (1, 3))
    assert Classifier(copy, mean=[0], std=[1]).sha256() == identity, "whole numbers"
    assert Classifier(copy, **once).sha256() == Classifier(copy, **each).sha256() != identity
    assert Classifier(copy, mean=[0.5, 0.5, 0.4], std=[1.0] * 3).sha256() != Classifier(copy, mean=[0.5]).sha256()
    with torch.no_grad():
        copy[2].bias[0] += 1e-3  # type: ignore[index, union-attr, operator]
    assert Classifier(copy).sha256() != identity


def test_a_network_may_change_its_input_in_place_and_the_images_stay() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sub_(0.3).flatten(1)

    images = torch.rand(4, 1, 2, 2)
    before, classifier = images.clone(), Classifier(InPlace())
    assert torch.equal(classifier.predict(images), classifier.predict(images))
    assert torch.equal(images, before)
    classifier.require_gradient(images)


def test_wrapping_a_network_leaves_the_modes_of_its_layers() -> None:
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 3))
    module[1].eval()
    classifier = Classifier(module)
    assert classifier.training
    assert [layer.training for layer in module] == [True, False, True]


def test_only_a_missing_gradient_is_called_that() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.flatten(1), x

    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).detach()

    images = torch.rand(3, 3, 2, 2)
    with pytest.raises(UnsupportedError, match="logits"):
        Classifier(Pair()).require_gradient(images)
    with pytest.raises(UnsupportedError, match="no gradient"):
        Classifier(Detached()).require_gradient(images)
    with pytest.raises(ShapeError, match="mean and std have 4 values, one per channel, and the images have 3 channels"):
        Classifier(network().eval(), mean=[0.0] * 4, std=[1.0] * 4).require_gradient(images)


def test_answers_that_depend_on_the_batch_or_on_chance_are_unsupported() -> None:
    for seed, bad in product(range(20), (nn.BatchNorm1d(12, track_running_stats=False), nn.Dropout(0.5))):
        torch.manual_seed(seed)
        images = torch.rand(6, 3, 2, 2)
        classifier = Classifier(nn.Sequential(nn.Flatten(), bad, nn.Linear(12, 3)))
        if isinstance(bad, nn.Dropout):
            classifier.train()
        else:
            classifier.eval()
        with pytest.raises(UnsupportedError, match="changes with the other images"):
            classifier.require_steady(images)
    Classifier(network().eval()).eval().require_steady(images)
    Classifier(network().eval()).eval().require_steady(images[:1])


def test_grey_images_are_not_spread_over_the_channels_of_a_mean() -> None:
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), mean=[0.5] * 3, std=[0.2] * 3)
    assert classifier(torch.rand(2, 3, 2, 2)).shape == (2, 3)
    for images in (torch.rand(2, 1, 2, 2), torch.zeros(2, 1, 2, 2, dtype=torch.uint8)):
        with pytest.raises(ShapeError, match="3 values, one per channel, and the images have 1 channels"):
            classifier.predict(images)


def test_what_is_no_batch_of_images_is_told_before_it_is_split() -> None:
    classifier = Classifier(network().eval())
    for wrong in (torch.rand(5), torch.rand(3, 2, 2)):
        with pytest.raises(ShapeError, match="expected a batch of images"):
            classifier.predict(wrong)


def test_a_compiled_network_is_taken_as_it_was_written() -> None:
    module = network().eval()
    compiled = Classifier(torch.compile(module, backend="eager"))
    assert compiled.module is module
    assert compiled.sha256() == Classifier(module).sha256()
