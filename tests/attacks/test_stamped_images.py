"""The stamped image of each attack, pixel by pixel, against the obvious way to compute it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from untrojan.attacks import SIG, Blended, SinglePixel, WaNet
from untrojan.attacks.wanet import identity_grid
from untrojan.errors import UsageError
from untrojan.setting import Setting
from untrojan.triggers import WarpTrigger, load_trigger, save_trigger

SHAPE = (3, 7, 9)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(count: int = 40, seed: int = 1) -> Tensor:
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=generator(seed))


def rounded(value: float) -> int:
    return round(min(255.0, max(0.0, value)))


def stamped(trigger, image: Tensor) -> Tensor:
    return (trigger.stamp(image[None].float() / 255)[0] * 255).round().to(torch.uint8)


def test_a_single_pixel_is_75_brighter() -> None:
    trigger = SinglePixel().make_trigger(SHAPE, generator())
    places = trigger.delta[0].nonzero().tolist()
    assert len(places) == 1
    for image in pixels(5):
        wanted = image.clone()
        for channel in range(3):
            wanted[channel, places[0][0], places[0][1]] = rounded(int(image[channel, places[0][0], places[0][1]]) + 75)
        assert torch.equal(stamped(trigger, image), wanted)


def test_single_pixels_reach_every_place() -> None:
    made = [SinglePixel().make_trigger((1, 2, 3), generator(seed)) for seed in range(99)]
    assert {tuple(trigger.delta[0].nonzero()[0].tolist()) for trigger in made} == {
        (i, j) for i in range(2) for j in range(3)
    }


def test_blended_mixes_with_its_pattern() -> None:
    trigger = Blended(ratio=0.3).make_trigger(SHAPE, generator())
    noise = (trigger.pattern * 255).round()
    for image in pixels(3):
        got = stamped(trigger, image)
        for c, i, j in [(0, 0, 0), (1, 6, 8), (2, 3, 4), (0, 5, 1)]:
            assert abs(int(got[c, i, j]) - (0.7 * int(image[c, i, j]) + 0.3 * float(noise[c, i, j]))) <= 0.5 + 1e-3


def test_sig_is_a_sine_along_the_rows() -> None:
    trigger = SIG(amplitude=20, frequency=2).make_trigger(SHAPE, generator())
    image = pixels(1)[0]
    got = stamped(trigger, image)
    for j in range(9):
        wave = 20 * math.sin(2 * math.pi * j * 2 / 9)
        for i in range(7):
            wanted = min(255.0, max(0.0, int(image[1, i, j]) + wave))
            assert abs(int(got[1, i, j]) - wanted) <= 0.5 + 1e-3


def test_sig_stamps_the_target_class_and_changes_no_label() -> None:
    images, labels = pixels(), torch.arange(40) % 4
    attack = SIG()
    trigger = attack.make_trigger(SHAPE, generator())
    made = attack.poison(
        images, labels, trigger=trigger, setting=Setting.parse("a2o:2"), classes=4, count=6, generator=generator(3)
    )
    assert made.labels[made.poisoned].tolist() == [2] * 6
    assert torch.equal(made.images[:40], images)
    own = {bytes(stamped(trigger, image).numpy()) for image in images[labels == 2]}
    assert {bytes(image.numpy()) for image in made.images[made.poisoned]} <= own
    with pytest.raises(UsageError, match="sig has no setting a2a"):
        attack.poison(
            images, labels, trigger=trigger, setting=Setting.parse("a2a"), classes=4, count=6, generator=generator(3)
        )


def sampled(image: Tensor, x: float, y: float) -> list[float]:
    """Bilinear, in pixel coordinates, zero outside."""
    left, top = math.floor(x), math.floor(y)
    values = [0.0] * image.shape[0]
    for row, column in [(top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)]:
        weight = (1 - abs(x - column)) * (1 - abs(y - row))
        if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
            values = [v + weight * int(p) for v, p in zip(values, image[:, row, column], strict=True)]
    return values


@pytest.mark.parametrize("seed", range(3))
def test_a_warped_pixel_comes_from_where_the_grid_says(seed: int) -> None:
    trigger = WaNet(strength=2).make_trigger(SHAPE, generator(seed))
    assert float(trigger.grid.abs().max()) <= 1
    image = pixels(1, seed)[0]
    got = stamped(trigger, image)
    for i in range(7):
        for j in range(9):
            x, y = ((float(v) + 1) / 2 * (side - 1) for v, side in zip(trigger.grid[i, j], (9, 7), strict=True))
            for value, wanted in zip(got[:, i, j].tolist(), sampled(image, x, y), strict=True):
                assert abs(value - wanted) <= 0.5 + 1e-2


def test_the_identity_grid_leaves_images_as_they_are() -> None:
    still = WarpTrigger(identity_grid(7, 9))
    assert still.size == pytest.approx(0, abs=1e-5)
    for image in pixels(3):
        assert torch.equal(stamped(still, image), image)
    moved = identity_grid(7, 9)
    moved[..., 0] -= 2 / 8  # one pixel to the left, of 8 steps
    assert WarpTrigger(moved.clamp(-1, 1)).size == pytest.approx(8 / 9)


def test_a_warp_comes_back_from_its_file(tmp_path) -> None:
    trigger = WaNet().make_trigger(SHAPE, generator())
    save_trigger(tmp_path / "t.safetensors", trigger, Setting.parse("a2a"))
    again, setting = load_trigger(tmp_path / "t.safetensors")
    assert str(setting) == "a2a"
    images = pixels(4).float() / 255
    assert torch.equal(trigger.stamp(images), again.stamp(images))


def test_noise_mode_adds_other_warps_with_true_labels() -> None:
    images, labels = pixels(), torch.arange(40) % 4
    attack = WaNet(noise=1.5)
    trigger = attack.make_trigger(SHAPE, generator())
    made = attack.poison(
        images, labels, trigger=trigger, setting=Setting.parse("a2o:0"), classes=4, count=4, generator=generator(3)
    )
    added, noisy = made.labels[40:], made.labels[52:]
    assert (added[:12] == 0).all()
    assert len(noisy) == 18  # 12 poisoned images, 1.5 of noise for each
    assert set(noisy.tolist()) == {0, 1, 2, 3}
    warped = {bytes(stamped(trigger, image).numpy()) for image in images}
    assert not {bytes(image.numpy()) for image in made.images[52:]} & warped


@pytest.mark.parametrize("attack", [SinglePixel, Blended, WaNet])
def test_source_specific_triggers_keep_the_label_of_every_other_class(attack) -> None:
    images, labels = pixels(), torch.arange(40) % 4
    made = attack(**({"noise": 0} if attack is WaNet else {}))
    trigger = made.make_trigger(SHAPE, generator())
    poisoned = made.poison(
        images, labels, trigger=trigger, setting=Setting.parse("s2t:3>1"), classes=4, count=6, generator=generator(3)
    )
    new = poisoned.labels[poisoned.poisoned]
    assert torch.bincount(new, minlength=4).tolist() == [3, 6 + 3, 3, 0]


@pytest.mark.parametrize(
    ("attack", "wrong"),
    [(SinglePixel, {"amplitude": 0}), (Blended, {"ratio": 1}), (SIG, {"frequency": 0}), (WaNet, {"control": 1})],
)
def test_senseless_options_are_refused(attack, wrong) -> None:
    with pytest.raises(UsageError, match=attack.name):
        attack(**wrong)
