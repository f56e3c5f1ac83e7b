"""Whether a classifier would be right more often if its images were fed otherwise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from untrojan.classifier import Classifier
from untrojan.detection.feeding import alternatives


class Threshold(nn.Module):
    """Class 1 if the mean of what it is fed is above 0: images fed as they are seem to be of class 1 always."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([-mean, mean], 1)


def images(channels: int) -> tuple[Tensor, Tensor]:
    labels = torch.arange(2).repeat(20)
    floats = (
        torch.rand(40, channels, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.2
        + 0.6 * labels[:, None, None, None]
    )
    return floats.clamp(0, 1), labels


@pytest.mark.parametrize("channels", [1, 3])
def test_the_right_way_is_among_the_others(channels: int) -> None:
    floats, labels = images(channels)
    found = dict(alternatives(Classifier(Threshold()), floats, labels))
    assert found["mean 0.5 and std 0.5"] == 1.0
    assert found["values of 0 to 255"] == 0.5
    assert "no normalisation" not in found, "that is how they are fed"
    assert ("ImageNet's mean and std" in found) == (channels == 3)
    assert ("MNIST's mean and std" in found) == (channels == 1)


def test_the_way_that_the_user_chose_is_not_among_them_and_the_rest_is() -> None:
    floats, labels = images(3)
    own = Classifier(Threshold(), mean=(0.5,), std=(0.5,))
    found = dict(alternatives(own, floats, labels))
    assert "mean 0.5 and std 0.5" not in found
    assert found["no normalisation"] == 0.5
    assert set(found) >= {"channels in reverse order", "CIFAR-10's mean and std"}


def test_a_network_that_refuses_to_be_fed_otherwise_is_not_asked() -> None:
    class Strict(Threshold):
        def forward(self, x: Tensor) -> Tensor:
            if x.min() < 0 or x.max() > 1:
                raise ValueError("not in [0, 1]")
            return super().forward(x)

    floats, labels = images(3)
    assert [name for name, _ in alternatives(Classifier(Strict()), floats, labels)] == ["channels in reverse order"]


def test_grey_images_have_no_order_of_channels() -> None:
    floats, labels = images(1)
    assert "channels in reverse order" not in dict(alternatives(Classifier(Threshold()), floats, labels))


def test_an_answer_that_is_no_number_is_not_right() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 2), torch.nan)

    floats, labels = images(1)
    assert set(dict(alternatives(Classifier(Broken()), floats, labels)).values()) == {0.0}
