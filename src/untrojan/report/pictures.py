"""Tensors as pictures in the page: PNG files in data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from untrojan.report.content import TriggerPicture

# A difference is multiplied by the largest of these that keeps it within what a pixel can show.
FACTORS = (100, 50, 20, 10, 5, 2, 1)


@dataclass(frozen=True)
class Shown:
    """One image three times, as data URIs."""

    clean: str
    stamped: str
    difference: str


@dataclass(frozen=True)
class ShownTrigger:
    """A trigger as pictures: alone on grey (None if it changes nothing there), and on each image.

    Differences are shown ``factor`` times as large as they are, mid-grey being none; what goes past black or white is
    cut.
    """

    factor: int
    alone: str | None
    images: tuple[Shown, ...]


def png_data_uri(image: Tensor) -> str:
    """A uint8 image [C, H, W] as ``data:image/png;base64,…``: grey if C = 1, RGB if C = 3, else the channels' mean."""
    image = image.detach().cpu()
    if image.shape[0] not in (1, 3):
        image = image.to(torch.float32).mean(0, keepdim=True).round().to(torch.uint8)
    pixels = image[0] if image.shape[0] == 1 else image.permute(1, 2, 0)
    stream = io.BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def amplification(difference: Tensor) -> int:
    """By how much a difference of images in [0, 1] can be multiplied and still be shown; 1 if it is large or nought."""
    largest = float(difference.abs().max()) if difference.numel() else 0.0
    return next((k for k in FACTORS if k * largest <= 0.5), 1) if largest > 0 else 1


def difference_image(difference: Tensor, factor: int) -> Tensor:
    """A signed difference [..., C, H, W] in [-1, 1] as uint8: mid-grey plus ``factor`` times it, clipped."""
    return (128 + factor * difference * 255).clamp(0, 255).round().to(torch.uint8)


def show(picture: TriggerPicture) -> ShownTrigger:
    """Stamp the trigger on the images and on grey.

    Raises ShapeError if the trigger does not fit the images.
    """
    clean = picture.clean.detach().cpu().to(torch.float32) / 255
    stamped = picture.trigger.stamp(clean)
    grey = torch.full((1, *clean.shape[1:]), 128 / 255)
    alone = picture.trigger.stamp(grey) - grey
    change = stamped - clean
    factor = amplification(torch.cat([change, alone]))
    after, differences = (stamped * 255).round().to(torch.uint8), difference_image(change, factor)
    return ShownTrigger(
        factor=factor,
        alone=png_data_uri(difference_image(alone, factor)[0]) if bool(alone.any()) else None,
        images=tuple(
            Shown(png_data_uri(a), png_data_uri(b), png_data_uri(d))
            for a, b, d in zip(picture.clean, after, differences, strict=True)
        ),
    )
