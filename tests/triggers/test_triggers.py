from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from oracles.stamping import added, eight_bits, patched
from untrojan.errors import CheckpointError, ShapeError
from untrojan.setting import Setting
from untrojan.triggers import (
    FORMAT,
    TRIGGER_KINDS,
    AdditiveTrigger,
    BlendTrigger,
    PatchTrigger,
    Trigger,
    load_trigger,
    save_trigger,
    to_grid,
)

SETTING = Setting.parse("a2o:1")


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def patch(channels: int = 3) -> PatchTrigger:
    return PatchTrigger(rand(1, 4, 5, seed=1), rand(channels, 4, 5, seed=2))


def additive(channels: int = 3) -> AdditiveTrigger:
    return AdditiveTrigger(2 * rand(channels, 4, 5, seed=3) - 1)


def blend(channels: int = 3) -> BlendTrigger:
    return BlendTrigger(torch.tensor([0.3]), rand(channels, 4, 5, seed=4))


def test_a_blend_is_a_patch_over_the_whole_image() -> None:
    images, trigger = rand(2, 3, 4, 5), blend()
    assert torch.equal(trigger.stamp(images), patched(images, torch.full((1, 4, 5), 0.3), trigger.pattern))
    assert trigger.size == pytest.approx(0.3)
    assert torch.equal(BlendTrigger(torch.zeros(1), trigger.pattern).stamp(to_grid(images)), to_grid(images))


@pytest.mark.parametrize(
    ("ratio", "pattern", "reason"),
    [
        (torch.zeros(2), torch.zeros(3, 4, 5), r"ratio \[1\] and pattern \[C,H,W\], got \[2\] and \[3, 4, 5\]"),
        (torch.zeros(1), torch.zeros(4, 5), r"got \[1\] and \[4, 5\]"),
        (torch.full((1,), 1.5), torch.zeros(3, 4, 5), "ratio"),
        (torch.zeros(1), torch.full((3, 4, 5), -0.1), "pattern"),
    ],
)
def test_what_is_no_blend_is_refused(ratio: Tensor, pattern: Tensor, reason: str) -> None:
    with pytest.raises(ShapeError, match=reason):
        BlendTrigger(ratio, pattern)


def test_a_patch_is_stamped_pixel_by_pixel() -> None:
    images, trigger = rand(2, 3, 4, 5), patch()
    assert torch.equal(trigger.stamp(images), patched(images, trigger.mask, trigger.pattern))


def test_a_pattern_is_added_pixel_by_pixel() -> None:
    images, trigger = rand(2, 3, 4, 5), additive()
    stamped = trigger.stamp(images)
    assert torch.equal(stamped, added(images, trigger.delta))
    assert stamped.min() == 0
    assert stamped.max() == 1


@pytest.mark.parametrize("trigger", [patch(1), additive(1), blend(1)])
def test_a_grey_trigger_fits_coloured_images(trigger: Trigger) -> None:
    images = rand(2, 3, 4, 5)
    coloured = TRIGGER_KINDS[trigger.kind](
        **{name: t.expand(3, -1, -1) if name in ("pattern", "delta") else t for name, t in trigger.tensors().items()}
    )
    assert torch.equal(trigger.stamp(images), coloured.stamp(images))


def test_a_whole_mask_replaces_and_an_empty_one_leaves() -> None:
    images, pattern = to_grid(rand(2, 3, 4, 5)), to_grid(rand(3, 4, 5, seed=2))
    assert torch.allclose(
        PatchTrigger(torch.ones(1, 4, 5), pattern).stamp(images), pattern.expand_as(images), atol=1e-7
    )
    assert torch.equal(PatchTrigger(torch.zeros(1, 4, 5), pattern).stamp(images), images)


def test_stamping_changes_neither_images_nor_trigger() -> None:
    for trigger in (patch(), additive(), blend()):
        images, before = rand(2, 3, 4, 5), trigger.sha256()
        trigger.stamp(images)
        assert torch.equal(images, rand(2, 3, 4, 5))
        assert trigger.sha256() == before


def test_every_byte_is_on_the_grid() -> None:
    exact = torch.arange(256) / 255
    assert torch.equal(to_grid(exact), exact)
    assert torch.equal((to_grid(exact) * 255).round().to(torch.uint8), torch.arange(256).to(torch.uint8))


@settings(deadline=None)
@given(arrays.arrays(np.float32, 8, elements=st.floats(-2, 3, width=32)))
def test_grid_is_the_nearest_byte(values: np.ndarray) -> None:
    rounded = to_grid(torch.from_numpy(values))
    assert rounded.tolist() == [eight_bits(value) for value in values]
    assert ((rounded - torch.from_numpy(values).clamp(0, 1)).abs() <= 0.5001 / 255).all()
    assert torch.equal(to_grid(rounded), rounded)


@pytest.mark.parametrize("trigger", [patch(), additive(), blend()])
@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 1, 4, 5), (2, 3, 5, 4), (2, 3, 4, 6), (2, 4, 4, 5)])
def test_images_of_another_shape(trigger: Trigger, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="the trigger is for images of shape 3x4x5"):
        trigger.stamp(torch.zeros(shape))


@pytest.mark.parametrize("trigger", [patch(), additive(), blend()])
def test_bytes_are_refused_not_taken_for_white(trigger: Trigger) -> None:
    with pytest.raises(ShapeError, match=r"float images in \[0, 1\], got torch.uint8"):
        trigger.stamp(torch.zeros(2, 3, 4, 5, dtype=torch.uint8))


def test_sizes_are_the_norms() -> None:
    mask = torch.zeros(1, 4, 5)
    mask[0, 0, :3] = torch.tensor([1, 0.5, 0.25])
    assert PatchTrigger(mask, rand(3, 4, 5)).size == 1.75
    delta = torch.zeros(3, 4, 5)
    delta[0, 0, 0], delta[2, 3, 4] = 0.6, -0.8
    assert AdditiveTrigger(delta).size == pytest.approx(1)


def test_a_hash_tells_triggers_apart() -> None:
    near = additive().delta.clone()
    near[0, 0, 0] = torch.nextafter(near[0, 0, 0], torch.tensor(2.0))
    turned = AdditiveTrigger(additive().delta.view(3, 5, 4))
    triggers = [patch(), additive(), AdditiveTrigger(near), turned, PatchTrigger(patch().mask, patch().pattern.flip(0))]
    assert len({trigger.sha256() for trigger in triggers}) == 5
    assert patch().sha256() == patch().sha256()
    strided = additive().delta.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert AdditiveTrigger(strided).sha256() == additive().sha256()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1.001, -1.001])
def test_values_out_of_range(bad: float) -> None:
    tensors = {"mask": rand(1, 4, 5), "pattern": rand(3, 4, 5), "delta": rand(3, 4, 5)}
    for name, tensor in tensors.items():
        tensor[0, 1, 2] = bad
        with pytest.raises(ShapeError, match=name):
            AdditiveTrigger(tensor) if name == "delta" else PatchTrigger(
                **{"mask": rand(1, 4, 5), "pattern": rand(3, 4, 5)} | {name: tensor}
            )


def test_tensors_of_other_shapes_and_kinds() -> None:
    good = rand(3, 4, 5)
    for mask, pattern in [
        (rand(3, 4, 5), good),
        (rand(4, 5), good),
        (rand(1, 5, 4), good),
        (rand(1, 4, 5), rand(4, 5)),
        (rand(1, 4, 5).to(torch.uint8), good),
        (rand(1, 4, 0), rand(3, 4, 0)),
    ]:
        with pytest.raises(ShapeError):
            PatchTrigger(mask, pattern)
    for delta in (rand(4, 5), rand(1, 3, 4, 5), good.to(torch.int64), rand(0, 4, 5)):
        with pytest.raises(ShapeError):
            AdditiveTrigger(delta)


def test_a_gradient_is_left_behind() -> None:
    delta = rand(3, 4, 5).requires_grad_()
    assert not AdditiveTrigger(delta).stamp(rand(2, 3, 4, 5)).requires_grad


@pytest.mark.parametrize("trigger", [patch(), additive(), patch(1), additive(1)])
@pytest.mark.parametrize("text", ["a2o:1", "a2a", "s2t:3>12"])
def test_a_file_gives_the_trigger_back_bit_for_bit(tmp_path: Path, trigger: Trigger, text: str) -> None:
    save_trigger(tmp_path / "trigger.safetensors", trigger, Setting.parse(text))
    again, setting = load_trigger(tmp_path / "trigger.safetensors")
    assert type(again) is type(trigger)
    assert setting == Setting.parse(text)
    assert again.sha256() == trigger.sha256()
    for name, tensor in trigger.tensors().items():
        assert again.tensors()[name].dtype == torch.float32
        assert torch.equal(again.tensors()[name], tensor)


def test_a_mask_may_be_its_own_pattern(tmp_path: Path) -> None:
    tensor = rand(1, 4, 5)
    save_trigger(tmp_path / "trigger.safetensors", PatchTrigger(tensor, tensor), SETTING)
    assert load_trigger(tmp_path / "trigger.safetensors")[0].sha256() == PatchTrigger(tensor, tensor).sha256()


def file(folder: Path, tensors: dict[str, Tensor], **metadata: str) -> Path:
    path = folder / "trigger.safetensors"
    known = {"format": FORMAT, "kind": "additive", "setting": "a2a"}
    path.write_bytes(safetensors.torch.save(tensors, {k: v for k, v in (known | metadata).items() if v}))
    return path


DELTA = {"delta": torch.zeros(3, 4, 5)}


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        (DELTA, {"format": ""}, "not a trigger file"),
        (DELTA, {"format": "untrojan-trigger-2"}, "not a trigger file"),
        (DELTA, {"kind": ""}, "trigger kind '' is not one of patch, additive"),
        (DELTA, {"kind": "warp\n"}, r"trigger kind 'warp\\n' is not one of"),
        (DELTA, {"setting": ""}, "expected a2o:T, a2a or s2t:S>T"),
        (DELTA, {"setting": "a2o:x\n"}, "expected a2o:T"),
        (DELTA, {"setting": "s2t:1>1"}, "the same class"),
        (DELTA, {"kind": "patch"}, "not a valid patch trigger: it has too few or too many tensors"),
        ({}, {}, "it has too few or too many tensors"),
        (DELTA | {"a\nb": torch.zeros(1)}, {}, "it has too few or too many tensors"),
        (DELTA | {"self": torch.zeros(1)}, {}, "it has too few or too many tensors"),
        ({"delta": torch.zeros(4, 5)}, {}, "not a valid additive trigger"),
        ({"delta": torch.full((3, 4, 5), torch.nan)}, {}, "not a valid additive trigger"),
        ({"delta": torch.full((3, 4, 5), 2.0)}, {}, r"delta must lie in \[-1, 1\]"),
        *(
            ({"delta": DELTA["delta"].to(d)}, {}, "delta must be finite")
            for d in (torch.int8, torch.bool, torch.cfloat)
        ),
        *(({"delta": DELTA["delta"].to(d)}, {}, "delta must be") for d in (torch.float8_e4m3fn, torch.float8_e5m2)),
    ],
)
def test_a_malformed_file(tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], message: str) -> None:
    path = file(tmp_path, tensors, **metadata)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_trigger(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_trigger(tmp_path / "trigger.safetensors")
