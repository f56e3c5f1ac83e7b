from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from untrojan.attacks import L0Inv, L2Inv
from untrojan.errors import UnsupportedError, UsageError

SHAPE = (3, 8, 8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int = 0) -> nn.Module:
    """Images [N, 3, 8, 8] to logits, with features that depend on single pixels."""
    drawn = generator(seed)
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=drawn) / 10)
    return module.eval().requires_grad_(False)


def images() -> Tensor:
    return torch.randint(0, 256, (80, *SHAPE), dtype=torch.uint8, generator=generator(1))


def excitement(module: nn.Module, delta: Tensor, attack_seed: int) -> float:
    """Mean of the neurons that the attack chose, which it draws first."""
    chosen = torch.randperm(16, generator=generator(attack_seed))[:8]
    features = module[:3]((images().float() / 255 + delta).clamp(0, 1))
    return float(features[:, chosen].mean())


@pytest.mark.parametrize("attack", [L2Inv(radius=0.7), L0Inv(pixels=5, amplitude=60)])
@pytest.mark.parametrize("seed", range(3))
def test_the_search_beats_its_start_within_the_constraint(attack, seed: int) -> None:
    start = attack.make_trigger(SHAPE, generator(seed))
    module = network()
    found = attack.optimise(start, module, images(), generator(seed))
    assert excitement(module, found.delta, seed) > excitement(module, start.delta, seed) + 0.01
    for trigger in (start, found):
        levels = trigger.delta * 255
        assert torch.allclose(levels, levels.round(), atol=1e-4), "in steps of 1/255"
        if isinstance(attack, L2Inv):
            assert float(trigger.delta.double().norm()) <= 0.7
        else:
            assert int((trigger.delta != 0).any(0).sum()) <= 5
            assert float(levels.abs().max()) <= 60 + 1e-4
    assert float(found.delta.abs().max()) > 0


def test_the_constraint_holds_for_what_is_stamped() -> None:
    for attack in (L2Inv(radius=1.0), L0Inv(pixels=7)):
        trigger = attack.optimise(attack.make_trigger(SHAPE, generator()), network(), images(), generator())
        clean = (images()[:20].float() / 255).contiguous()
        difference = trigger.stamp(clean) - clean
        if isinstance(attack, L2Inv):
            # Clipping at 0 and 1 only makes a change smaller.
            assert float(difference.flatten(1).norm(dim=1).max()) <= 1.0 + 1e-5
        else:
            assert int((difference.abs() > 1e-6).any(1).flatten(1).sum(1).max()) <= 7


def test_same_seed_same_trigger_and_the_network_is_as_found() -> None:
    module, attack = network(), L2Inv()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    start = attack.make_trigger(SHAPE, generator(3))
    first, second = (attack.optimise(start, module, images(), generator(4), steps=30) for _ in range(2))
    assert torch.equal(first.delta, second.delta)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert not module[3]._forward_pre_hooks


def test_a_network_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="linear layer"):
        L2Inv().optimise(
            L2Inv().make_trigger(SHAPE, generator()), nn.Sequential(nn.Conv2d(3, 4, 8)), images(), generator()
        )


@pytest.mark.parametrize(
    ("attack", "wrong"),
    [(L2Inv, {"radius": 0}), (L2Inv, {"radius": 51}), (L0Inv, {"pixels": 0}), (L0Inv, {"amplitude": 0})],
)
def test_senseless_options_are_refused(attack, wrong) -> None:
    with pytest.raises(UsageError, match=attack.name):
        attack(**wrong)


def test_no_more_pixels_are_asked_for_than_an_image_has() -> None:
    with pytest.raises(UsageError, match="65 pixels, and the images have 64"):
        L0Inv(pixels=65).make_trigger(SHAPE, generator())
    assert L0Inv(pixels=64).make_trigger(SHAPE, generator())


@pytest.mark.parametrize("attack", [L0Inv(amplitude=0.5), L2Inv(radius=0.001)])
def test_a_trigger_that_changes_nothing_is_refused(attack) -> None:
    with pytest.raises(UsageError, match=f"{attack.name}: with these options no pixel changes"):
        attack.make_trigger((1, 28, 28), generator())
