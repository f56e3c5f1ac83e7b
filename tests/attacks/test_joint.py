from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from untrojan.attacks import Aim, InputAware, Wasserstein
from untrojan.attacks.wasserstein import sliced_wasserstein
from untrojan.errors import UnsupportedError, UsageError
from untrojan.setting import Setting

SHAPE = (3, 8, 8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Spy(nn.Module):
    """A classifier that remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(192, 4)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.linear(x.flatten(1))


def batch(count: int = 20) -> tuple[Tensor, Tensor]:
    return torch.rand(count, *SHAPE, generator=generator(1)), torch.arange(count) % 4


def test_an_aim_moves_labels_as_the_setting_says() -> None:
    labels = torch.tensor([0, 1, 2, 3])
    assert Aim(Setting.parse("a2a"), 4).labels(labels).tolist() == [1, 2, 3, 0]
    assert Aim(Setting.parse("a2o:2"), 4).labels(labels).tolist() == [2, 2, 2, 2]
    assert Aim(Setting.parse("s2t:3>1"), 4).labels(labels).tolist() == [0, 1, 2, 1]


def test_input_aware_stamps_its_share_with_own_and_others_triggers() -> None:
    attack = InputAware(attacked=0.2, crossed=0.3)
    game = attack.game(SHAPE, Aim(Setting.parse("a2a"), 4), generator())
    images, labels = batch()
    spy = Spy()
    loss = game.loss(spy, images, labels, generator(), 0.0)
    (shown,) = spy.seen
    trigger = game.trigger()
    assert torch.equal(shown[10:], images[10:]), "half of the batch stays clean"
    assert torch.allclose(trigger.apply(images[:4]), shown[:4], atol=1e-5)
    # The others wear the trigger of another image: of the one four places before.
    networks = dict(game.networks.items())
    for row in range(4, 10):
        painter = images[row - 4 : row - 3]
        pattern, mask = torch.sigmoid(networks["pattern"](painter)), torch.sigmoid(10 * networks["mask"](painter))
        assert torch.allclose((images[row] + mask * (pattern - images[row]))[0], shown[row], atol=1e-5)
    loss.backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in game.networks.parameters())


def test_wasserstein_stamps_its_share_faintly_and_then_fixes_its_network() -> None:
    attack = Wasserstein(strength=0.05, share=0.5, fixed=0.5)
    game = attack.game(SHAPE, Aim(Setting.parse("a2o:1"), 4), generator())
    images, labels = batch()
    spy = Spy()
    game.loss(spy, images, labels, generator(), 0.0).backward()
    (shown,) = spy.seen
    assert shown.shape[0] == 30
    assert torch.equal(shown[:20], images)
    assert 0 < float((shown[20:] - images[:10]).abs().max()) <= 0.05
    assert all(p.grad is not None for p in game.networks.parameters())
    game.networks.zero_grad(set_to_none=True)
    game.loss(spy, images, labels, generator(), 0.5).backward()
    assert all(p.grad is None for p in game.networks.parameters())
    assert not spy.linear._forward_pre_hooks


def test_wasserstein_needs_a_linear_layer() -> None:
    game = Wasserstein().game(SHAPE, Aim(Setting.parse("a2o:1"), 4), generator())
    with pytest.raises(UnsupportedError, match="linear layer"):
        game.loss(nn.Conv2d(3, 4, 8), *batch(), generator(), 0.0)


def test_the_distance_is_that_of_sorted_samples() -> None:
    a, b = torch.rand(9, 3, generator=generator(1)), torch.rand(9, 3, generator=generator(2))
    wanted = [
        sum((x - y) ** 2 for x, y in zip(sorted(a[:, d].tolist()), sorted(b[:, d].tolist()), strict=True)) / 9
        for d in range(3)
    ]
    assert float(sliced_wasserstein(a, b)) == pytest.approx(sum(wanted) / 3, rel=1e-5)
    assert float(sliced_wasserstein(a, a.flip(0))) == 0


@pytest.mark.parametrize(
    ("attack", "wrong"),
    [
        (InputAware, {"density": 0}),
        (InputAware, {"attacked": 0.7, "crossed": 0.7}),
        (Wasserstein, {"strength": 0}),
        (Wasserstein, {"latent": -1}),
    ],
)
def test_senseless_options_are_refused(attack, wrong) -> None:
    with pytest.raises(UsageError, match=attack.name):
        attack(**wrong)
