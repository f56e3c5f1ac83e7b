from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from untrojan.attacks.joint import drawn_networks
from untrojan.errors import CheckpointError, ShapeError
from untrojan.setting import Setting
from untrojan.triggers import (
    InputAwareTrigger,
    Trigger,
    WassersteinTrigger,
    load_trigger,
    save_trigger,
    to_grid,
    trigger_from_tensors,
)
from untrojan.triggers.generator import GeneratorTrigger

SHAPE = (3, 9, 10)


def made(kind: type[GeneratorTrigger], shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> GeneratorTrigger:
    networks = drawn_networks(kind.networks(shape[0]), torch.Generator().manual_seed(seed))
    return kind.of(shape, dict(networks.items()), **({"strength": 0.1} if kind is WassersteinTrigger else {}))


def images(count: int = 7, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return to_grid(torch.rand(count, *shape, generator=torch.Generator().manual_seed(1)))


def convolved(name: str, tensors: dict[str, Tensor], x: Tensor, stride: int = 1) -> Tensor:
    """A 3x3 convolution with zeros around, value by value."""
    weight, bias = tensors[f"{name}.weight"].double(), tensors[f"{name}.bias"].double()
    _, height, width = x.shape
    padded = torch.zeros(x.shape[0], height + 2, width + 2, dtype=torch.float64)
    padded[:, 1:-1, 1:-1] = x
    rows, columns = range(0, height, stride), range(0, width, stride)
    return torch.stack(
        [
            torch.stack([torch.stack([(w * padded[:, i : i + 3, j : j + 3]).sum() for j in columns]) for i in rows]) + b
            for w, b in zip(weight, bias, strict=True)
        ]
    )


def enlarged(x: Tensor, height: int, width: int) -> Tensor:
    """Nearest neighbour."""
    rows = torch.tensor([i * x.shape[1] // height for i in range(height)])
    columns = torch.tensor([j * x.shape[2] // width for j in range(width)])
    return x[:, rows][:, :, columns]


def painted(part: str, tensors: dict[str, Tensor], image: Tensor) -> Tensor:
    """What the network says it paints, spelled out."""
    fine = convolved(f"{part}.down1", tensors, image.double()).clamp_min(0)
    middle = convolved(f"{part}.down2", tensors, fine, 2).clamp_min(0)
    coarse = convolved(f"{part}.down3", tensors, middle, 2).clamp_min(0)
    back = (convolved(f"{part}.up2", tensors, enlarged(coarse, *middle.shape[1:])) + middle).clamp_min(0)
    back = (convolved(f"{part}.up1", tensors, enlarged(back, *fine.shape[1:])) + fine).clamp_min(0)
    return convolved(f"{part}.last", tensors, back)


def test_stamped_images_are_what_the_slow_form_says() -> None:
    aware, faint = made(InputAwareTrigger), made(WassersteinTrigger)
    for image in images(2):
        pattern = torch.sigmoid(painted("pattern", aware.tensors(), image))
        mask = torch.sigmoid(10 * painted("mask", aware.tensors(), image))
        wanted = to_grid(image + mask * (pattern - image))
        assert torch.allclose(aware.stamp(image[None])[0].double(), wanted.double(), atol=1e-6)
        noise = 0.1 * torch.tanh(painted("noise", faint.tensors(), image))
        assert torch.allclose(faint.stamp(image[None])[0].double(), to_grid(image + noise).double(), atol=1e-6)
        assert float((faint.stamp(image[None])[0] - image).abs().max()) <= 0.1 + 0.51 / 255


@pytest.mark.parametrize("kind", [InputAwareTrigger, WassersteinTrigger])
def test_an_image_is_stamped_alike_alone_and_among_others(kind: type[GeneratorTrigger]) -> None:
    trigger, many = made(kind), images(300)
    together = trigger.stamp(many)
    assert torch.equal(together, torch.cat([trigger.stamp(many[i : i + 1]) for i in range(300)]))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(together, trigger.stamp(many))
    finally:
        torch.set_num_threads(threads)
    assert together.dtype == torch.float32
    assert trigger.stamp(many[:0]).shape == (0, *SHAPE)
    assert trigger.size > 0


@pytest.mark.parametrize("kind", [InputAwareTrigger, WassersteinTrigger])
def test_the_file_gives_the_same_images(kind: type[GeneratorTrigger], tmp_path) -> None:
    trigger = made(kind)
    save_trigger(tmp_path / "t.safetensors", trigger, Setting.parse("a2a"))
    again, _ = load_trigger(tmp_path / "t.safetensors")
    assert isinstance(again, kind)
    assert again.image_shape == SHAPE
    assert again.sha256() == trigger.sha256()
    assert torch.equal(again.stamp(images()), trigger.stamp(images()))


def test_other_channels_are_refused() -> None:
    grey: Trigger = made(WassersteinTrigger, (1, 9, 10))
    with pytest.raises(ShapeError, match="1 channels, got 3"):
        grey.stamp(images())
    with pytest.raises(ShapeError, match="3x9x10"):
        made(WassersteinTrigger).stamp(torch.zeros(1, 3, 9, 9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": None}, "has a tensor 'shape'"),
        ({"shape": torch.tensor([3.0, 8.5, 8.0])}, "whole numbers"),
        ({"shape": torch.tensor([3.0, float("nan"), 8.0])}, "finite"),
        ({"strength": None}, "'strength': expected"),
        ({"noise.last.bias": torch.zeros(2)}, "'noise.last.bias': expected"),
        ({"noise.last.bias": torch.full((3,), torch.inf)}, "finite"),
        ({"other": torch.zeros(1)}, "'other': expected no such tensor"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change: dict[str, Tensor | None], message: str) -> None:
    tensors: dict[str, Tensor | None] = {**made(WassersteinTrigger).tensors(), **change}
    given = {name: value for name, value in tensors.items() if value is not None}
    with pytest.raises(CheckpointError, match=message):
        trigger_from_tensors("generator:wasserstein", given, "file")


def test_networks_have_no_weights_until_they_are_drawn() -> None:
    state = torch.get_rng_state()
    first = drawn_networks(InputAwareTrigger.networks(3), torch.Generator().manual_seed(2))
    second = drawn_networks(InputAwareTrigger.networks(3), torch.Generator().manual_seed(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(first, nn.ModuleDict)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
