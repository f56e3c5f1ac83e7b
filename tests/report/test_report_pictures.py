from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from report_examples import patch, picture
from torch import Tensor

from untrojan.errors import ShapeError
from untrojan.report.pictures import FACTORS, amplification, difference_image, png_data_uri, show
from untrojan.triggers import AdditiveTrigger, PatchTrigger


def decode(uri: str) -> Tensor:
    head, body = uri.split(",")
    assert head == "data:image/png;base64"
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(base64.b64decode(body)))))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_keeps_every_pixel(channels: int) -> None:
    image = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
    assert torch.equal(decode(png_data_uri(image)), image)


def test_other_channel_counts_become_grey() -> None:
    image = torch.tensor([10, 20, 30, 40], dtype=torch.uint8).view(4, 1, 1).expand(4, 2, 2)
    assert torch.equal(decode(png_data_uri(image)), torch.full((1, 2, 2), 25, dtype=torch.uint8))


@given(st.floats(0, 1, width=32))
def test_amplification_keeps_the_difference_within_what_can_be_shown(largest: float) -> None:
    factor = amplification(torch.tensor([0.0, -largest]))
    assert factor in FACTORS
    assert factor == 1 or factor * largest <= 0.5
    assert factor == max(FACTORS) or largest == 0 or factor * largest * 2.5 > 0.5


def test_difference_image_is_mid_grey_plus_k_times_the_difference() -> None:
    difference = torch.tensor([0.0, 1 / 255, -2 / 255, 1.0, -1.0])
    assert difference_image(difference, 10).tolist() == [128, 138, 108, 255, 0]


def test_shows_what_the_trigger_does() -> None:
    example = picture()
    shown = show(example)
    clean = example.clean.float() / 255
    for i, images in enumerate(shown.images):
        assert torch.equal(decode(images.clean), example.clean[i])
        stamped = decode(images.stamped)
        assert torch.equal(stamped, (example.trigger.stamp(clean)[i] * 255).round().to(torch.uint8))
        assert bool((stamped[:, 1:3, 1:3] == 255).all())
        unchanged = decode(images.difference)[:, 3:, 3:]
        assert bool((unchanged == 128).all())
    assert shown.factor == 1
    assert shown.alone is not None
    assert bool((decode(shown.alone)[:, 1:3, 1:3] == 255).all())


def test_small_triggers_are_amplified() -> None:
    shown = show(picture(AdditiveTrigger(torch.full((3, 8, 8), 2 / 255))))
    assert shown.factor == 50
    assert shown.alone is not None
    assert decode(shown.alone).unique().tolist() == [228]


def test_a_trigger_that_does_nothing_has_no_picture_of_its_own() -> None:
    shown = show(picture(PatchTrigger(torch.zeros(1, 8, 8), torch.zeros(3, 8, 8))))
    assert shown.alone is None
    assert shown.factor == 1


def test_no_images_leave_the_trigger_alone() -> None:
    example = replace(picture(), clean=torch.zeros(0, 3, 8, 8, dtype=torch.uint8), labels=(), predictions_clean=(),
                      predictions_stamped=())  # fmt: skip
    assert show(example).images == ()
    assert show(example).alone is not None


def test_a_trigger_of_another_size_is_refused() -> None:
    example = replace(picture(), clean=torch.zeros(2, 3, 9, 9, dtype=torch.uint8))
    with pytest.raises(ShapeError, match="3x8x8"):
        show(example)


def test_does_not_change_its_input() -> None:
    example, trigger = picture(), patch()
    before = example.clean.clone()
    show(example)
    assert torch.equal(example.clean, before)
    assert trigger.sha256() == example.trigger.sha256()
