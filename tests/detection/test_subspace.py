"""How much of what a trigger changes inside a network lies outside the subspace of its classes."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from untrojan.classifier import Classifier
from untrojan.detection import subspace
from untrojan.detection.shares import Searches
from untrojan.detection.subspace import class_subspace, cosines, inside
from untrojan.progress import Silent
from untrojan.triggers import PatchTrigger

CLASSES = 3


class Wired(nn.Module):
    """Grey 4x4 images whose top row says the class, pixel by pixel; the corner has a channel of its own."""

    def __init__(self, convolutional: bool = False):
        super().__init__()
        first = nn.Linear(16, 6)
        with torch.no_grad():
            first.weight.zero_()
            first.bias.zero_()
            for channel, pixel in enumerate((0, 1, 2, 15)):
                first.weight[channel, pixel] = 1.0
            first.weight[4, 5] = first.weight[5, 6] = 1.0  # noise
        self.layers = nn.ModuleList([first, *(nn.Linear(6, 6) for _ in range(3)), nn.Linear(6, CLASSES)])
        with torch.no_grad():
            for layer in self.layers[1:-1]:
                layer.weight.copy_(torch.eye(6))
                layer.bias.zero_()
            self.layers[-1].weight.zero_()
            self.layers[-1].weight[:, :3] = torch.eye(3)
            self.layers[-1].weight[2, 3] = 5.0
            self.layers[-1].bias.zero_()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(1)
        for layer in self.layers:
            y = layer(y)
        return y


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(CLASSES).repeat(30)
    given_images = 0.2 * torch.rand(len(labels), 1, 4, 4, generator=generator)
    given_images[torch.arange(len(labels)), 0, 0, labels] += 0.6
    return given_images, labels


def searches(network: nn.Module | None = None, deadline: float | None = None) -> Searches:
    return Searches(Classifier(network or Wired()), seed=0, progress=Silent(), deadline=deadline)


def patch(*pixels: int, value: float = 1.0) -> PatchTrigger:
    mask, pattern = torch.zeros(1, 16), torch.zeros(1, 16)
    for pixel in pixels:
        mask[0, pixel], pattern[0, pixel] = 1.0, value
    return PatchTrigger(mask.view(1, 4, 4), pattern.view(1, 4, 4))


def off_subspace(run: Searches, triggers: dict, floats: Tensor, labels: Tensor) -> dict:
    return {key: one.share for key, one in inside(run, triggers, floats, labels).items()}


def share_outside(shift: Tensor, clean: Tensor, labels: Tensor) -> float | None:
    space = class_subspace(clean, labels)
    found = None if space is None else space.outside(shift)
    return None if found is None else found[0]


def shares(*triggers: PatchTrigger, run: Searches | None = None) -> dict[int, float]:
    floats, labels = images()
    everywhere = torch.ones(len(labels), dtype=torch.bool)
    return off_subspace(run or searches(), {i: (t, everywhere, 0) for i, t in enumerate(triggers)}, floats, labels)


def test_the_attackers_pixel_lies_outside_and_what_makes_a_class_does_not() -> None:
    attackers, natural = shares(patch(15), patch(0)).values()
    assert attackers > 0.95
    assert natural < 0.6
    assert attackers > natural + 0.3


def test_only_the_images_that_a_trigger_is_for_are_looked_at() -> None:
    floats, labels = images()
    none = torch.zeros(len(labels), dtype=torch.bool)
    run = searches()
    assert off_subspace(run, {"a": (patch(15), none, 2), "b": (patch(15), labels == 1, 2)}, floats, labels).keys() == {
        "b"
    }
    assert off_subspace(run, {}, floats, labels) == {}
    late = searches(deadline=0.001)
    time.sleep(0.01)
    assert shares(patch(15), run=late) == {}
    assert late.unreached


def test_of_a_class_without_images_nothing_can_be_told() -> None:
    floats, labels = images()
    some = labels != 1
    found = {t: (patch(t), labels[some] >= 0, t) for t in range(CLASSES)}
    assert off_subspace(searches(), found, floats[some], labels[some]).keys() == {0, 2}
    assert share_outside(torch.ones(4), torch.randn(6, 4), torch.zeros(6, dtype=torch.int64)) is None


def test_what_moves_nothing_has_no_share() -> None:
    assert shares(PatchTrigger(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4))) == {}


def test_few_images_pass_and_no_hook_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subspace, "MOST", 40)
    monkeypatch.setattr(subspace, "SHOWN", 7)
    network = Wired()
    run = searches(network)
    passed: list[int] = []
    counter = network.register_forward_pre_hook(lambda _, given_images: passed.append(len(given_images[0])))
    floats, labels = images()
    first = off_subspace(run, {0: (patch(15), labels >= 0, 2), 1: (patch(3), labels == 2, 0)}, floats, labels)
    counter.remove()
    assert sum(passed[-3:]) == 40 + 7 + 7
    assert not any(layer._forward_pre_hooks for layer in network.modules())
    again = off_subspace(searches(), {0: (patch(15), labels >= 0, 2), 1: (patch(3), labels == 2, 0)}, floats, labels)
    assert first == again, "the same ones each time"


class Opaque(nn.Module):
    """Without layers that can be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(CLASSES, 16))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


class Tokens(nn.Module):
    """Convolutions, and linear layers with channels last, one of which is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 1)
        self.mix, self.decide = nn.Linear(8, 8), nn.Linear(8, CLASSES)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).tanh()).tanh().permute(0, 2, 3, 1)
        tokens = self.mix(x).tanh().flatten(1, 2)
        return self.decide(self.mix(tokens).mean(1))


class Moody(nn.Module):
    """Its layers see the places of all images as rows, or nothing of a batch that is dark."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.mix, self.decide = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(self.rows(x.reshape(-1, 4)).tanh()) if float(x.mean()) > 0.05 else x.new_zeros(4 * len(x), 8)
        return self.decide(y.view(len(x), 4, 8).mean(1))


class Loop(nn.Module):
    """Takes image by image, and its layer by a name the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mix, self.decide = nn.Linear(16, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        each = [self.mix(input=self.first(image.flatten()).tanh()[None]) for image in x]
        return self.decide(torch.cat(each))


class Expert(nn.Module):
    """Some of the images take one way, the others another."""

    def __init__(self) -> None:
        super().__init__()
        self.ways, self.decide = nn.ModuleList(nn.Linear(16, 8) for _ in range(3)), nn.Linear(8, CLASSES)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y, way = x.new_zeros(len(x), 8), (x[:, 0, 0, 0] > 0.5).long()
        for k in (0, 1):
            y[way == k] = self.ways[k](x[way == k].flatten(1))
        return self.decide(y)


def test_layers_that_see_places_as_rows_are_none_of_the_later_ones() -> None:
    floats, _ = images()
    network = Moody()
    assert network.mix not in subspace._later(Classifier(network), floats[:3])


@pytest.mark.parametrize("network", [Moody, Loop, Expert])
def test_what_is_not_one_row_for_each_image_is_left_out(network: type[nn.Module]) -> None:
    floats, labels = images()
    everywhere = labels >= 0
    for given_images in (floats, floats * 0):
        found = off_subspace(searches(network()), {0: (patch(15), everywhere, 0)}, given_images, labels)
        assert found == {}


def test_networks_of_other_kinds_can_be_looked_at_or_are_left_alone() -> None:
    assert shares(patch(15), run=searches(Opaque())) == {}
    torch.manual_seed(0)
    assert 0 <= shares(patch(15), run=searches(Tokens()))[0] <= 1


@given(st.integers(2, 6), st.integers(0, 1000))
def test_a_share_lies_between_none_and_all_and_is_blind_to_units(classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat(8)
    clean = (
        torch.randn(len(labels), 12, generator=generator) + 3 * torch.randn(classes, 12, generator=generator)[labels]
    )
    shift = torch.randn(12, generator=generator)
    share = share_outside(shift, clean, labels)
    assert share is not None
    assert 0 <= share <= 1
    unit = 0.5 + torch.rand(12, generator=generator)
    assert share_outside(7 * shift * unit, clean * unit + 3, labels) == pytest.approx(share, abs=1e-3)
    means = torch.stack([clean[labels == c].mean(0) for c in range(classes)])
    assert share_outside(means[1] - means[0], clean, labels) == pytest.approx(0, abs=1e-4)


def test_where_nothing_can_be_said_nothing_is() -> None:
    clean, labels = torch.randn(12, 4), torch.arange(6).repeat(2)
    assert share_outside(torch.ones(4), clean, labels) is None, "the classes differ in all directions"
    assert share_outside(torch.zeros(4), clean[:4], labels[:4] // 2) is None
    assert share_outside(torch.ones(4), torch.zeros(4, 4), torch.tensor([0, 0, 1, 1])) is None, "all is dead"
    assert share_outside(torch.full((4,), torch.inf), clean[:4], labels[:4] // 2) is None


def test_a_channel_that_is_all_but_dead_is_not_all_of_a_shift() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, labels = torch.randn(40, 6, generator=generator), torch.arange(2).repeat(20)
    clean[:, 0] += 5 * labels
    clean[:, 5] = 0
    natural = torch.tensor([5.0, 0, 0, 0, 0, 0.01])
    share = share_outside(natural, clean, labels)
    assert share is not None
    assert share < 0.3
    half_dead = torch.cat([clean, torch.zeros(40, 9)], 1)
    assert share_outside(torch.cat([natural, torch.zeros(9)]), half_dead, labels) == pytest.approx(share, abs=0.01)


def test_triggers_that_do_the_same_inside_are_alike_and_others_are_not() -> None:
    floats, labels = images()
    everywhere = torch.ones(len(labels), dtype=torch.bool)
    asked = {0: (patch(15), everywhere, None), 1: (patch(15, 14), everywhere, None), 2: (patch(5), everywhere, None)}
    found = inside(searches(), asked, floats, labels)
    assert all(one.rest.norm() == pytest.approx(len(one.rest) ** 0.5 / 6**0.5, rel=1e-5) for one in found.values())
    table = torch.tensor(cosines({key: one.rest for key, one in found.items()}, 4)).view(4, 4)
    assert float(table[0, 1]) > 0.9 > 0.5 > abs(float(table[0, 2]))
    assert bool(table[3].isnan().all()), "nothing is known of the last class"
