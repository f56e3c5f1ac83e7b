"""Encoded images to uint8 tensors, by Pillow, with limits: the files may come from anybody.

The conversion is what training pipelines do with ``Image.convert``: alpha is dropped, not composited; colour becomes
grey by the ITU-R 601-2 weights; EXIF orientation is not applied; of an animation the first frame counts.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from untrojan.errors import DataError, UnsupportedError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
)
MAX_PIXELS = 64_000_000
MAX_BYTES = 256 * 2**20
MAX_BATCH_BYTES = 16 * 2**30

Picture: TypeAlias = bytes | Path | Image.Image
"""An image before decoding: encoded bytes, a file, or an opened Pillow image."""

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_GREY = ("1", "L", "LA", "La", *_SIXTEEN_BIT, "I", "F")
_filters_lock = threading.Lock()  # warnings.catch_warnings changes state that all threads share


def shown(name: object) -> str:
    """A file's name as one printable line: what a data set's author called it must not reach a terminal raw."""
    text = str(name)
    text = text if len(text) <= 300 else f"{text[:300]}..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def reason(error: BaseException) -> str:
    """The first line of another library's message."""
    text = str(error).strip()
    return shown(text.splitlines()[0]) if text else type(error).__name__


def decode(
    source: Picture,
    *,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> Tensor:
    """One image as uint8 [C, H, W].

    channels: 1 or 3; None keeps grey as 1 and makes everything else 3. size: (H, W) to resize to, bilinear with
    antialiasing (Pillow's BILINEAR); None keeps it. 16-bit grey is scaled to 8 bits, not clipped. name: what
    messages call the image. ``max_pixels`` is checked on the header, before any pixel is decoded.

    Raises DataError if it is missing, too large, truncated, of another format than ``FORMATS`` or of a pixel type
    without a known range (float, 32-bit integer); UnsupportedError if ``channels`` is neither 1 nor 3.
    """
    if channels not in (None, 1, 3):
        raise UnsupportedError(f"images are read with 1 or 3 channels (grey or RGB), {channels} were asked for")
    if name is None:
        name = shown(source) if isinstance(source, Path) else "the image"
    image = source if isinstance(source, Image.Image) else _open(source, name, max_bytes)
    width, height = image.size
    if width * height < 1:
        raise DataError(f"{name}: the image is {width}x{height} pixels, which is empty; replace or remove it")
    if width * height > max_pixels:
        raise DataError(f"{name}: {width}x{height} pixels are more than the limit of {max_pixels}; make it smaller")
    try:
        image = _to_grey_or_rgb(image, name)
        if channels is not None and len(image.getbands()) != channels:
            image = image.convert("L" if channels == 1 else "RGB")
        if size is not None and image.size != (size[1], size[0]):
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image))
    except DataError:
        raise
    except Exception as error:  # the decoders raise nearly every built-in exception on malformed files
        raise DataError(f"{name}: the image cannot be decoded ({reason(error)}); replace or remove it") from None
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def decode_all(
    pictures: Iterable[tuple[str, Picture]],
    count: int,
    *,
    input_shape: tuple[int, int, int] | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """``count`` named images as uint8 [N, C, H, W], converted and resized to ``input_shape`` = (C, H, W).

    Without ``input_shape`` all must come out alike, after resizing to ``size`` = (H, W) if that is given: none is
    adapted to another. Raises DataError on the first image that cannot be read or differs, and if the batch would
    take more than 16 GiB; UnsupportedError if ``input_shape`` is not one that images can have.
    """
    channels: int | None = None
    if input_shape is not None:
        channels, size = require_shape(input_shape)[0], (input_shape[1], input_shape[2])
    elif size is not None:
        require_shape((1, *size))
    batch, first, done = None, "", 0
    wrong = f"{count} images were announced, {{}} found; the data changed while it was read, or is malformed"
    for name, picture in pictures:
        image = decode(picture, channels=channels, size=size, name=name)
        if batch is None:
            batch, first = _allocate(count, image), name
        if image.shape != batch.shape[1:]:
            shape = "x".join(map(str, batch.shape[1:]))
            raise DataError(
                f"the images differ in shape: {first} is {shape}, {name} is {'x'.join(map(str, image.shape))}; give "
                f"the shape to convert all of them to, such as --input 3x{batch.shape[2]}x{batch.shape[3]}"
            )
        if done == count:
            raise DataError(wrong.format("more"))
        batch[done] = image
        done += 1
    if batch is None or done != count:
        raise DataError(wrong.format(done))
    return batch


def require_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The shape itself; raises UnsupportedError unless it is (1 or 3, H, W) within the limit on pixels."""
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1 or shape[1] * shape[2] > MAX_PIXELS:
        raise UnsupportedError(
            f"images are read as 1xHxW or 3xHxW with at most {MAX_PIXELS} pixels, "
            f"{'x'.join(map(str, shape))} was asked for"
        )
    return shape


def _open(source: bytes | Path, name: str, max_bytes: int) -> Image.Image:
    content = _read(source, name, max_bytes) if isinstance(source, Path) else source
    if len(content) > max_bytes:
        raise DataError(f"{name}: the encoded image is larger than the limit of {max_bytes} bytes; make it smaller")
    try:
        with _filters_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about EXIF and other parts that are not used
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise DataError(f"{name}: not an image of a kind that is read ({', '.join(FORMATS)})") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: too many pixels ({reason(error)})") from None
    except Exception as error:  # as in decode
        raise DataError(f"{name}: not a readable image ({reason(error)})") from None


def _read(path: Path, name: str, max_bytes: int) -> bytes:
    try:
        if not path.is_file():
            raise DataError(f"{name}: {'not a file' if path.exists() else 'no such file'}; give an image file")
        with path.open("rb") as stream:
            return stream.read(max_bytes + 1)
    except (OSError, ValueError, MemoryError) as error:
        raise DataError(f"{name}: cannot be read ({reason(error)})") from None


def _to_grey_or_rgb(image: Image.Image, name: str) -> Image.Image:
    """The decoded image in mode L or RGB."""
    if image.mode in ("L", "RGB"):
        image.load()
        return image
    if image.mode in _SIXTEEN_BIT or (image.mode == "I" and image.format in ("PNG", "PPM")):
        levels = np.asarray(image).astype(np.float64).clip(0, 65535)  # these two formats hold at most 16 bits
        return Image.fromarray((levels / 257).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        kind = "32-bit integer" if image.mode == "I" else "floating-point"
        raise DataError(f"{name}: {kind} pixels have no known range; convert the image to 8 or 16 bits per channel")
    if image.mode == "La":
        return image.convert("LA").convert("L")
    if image.mode in _GREY:
        return image.convert("L")
    if image.mode in ("P", "PA", "RGBa"):
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _allocate(count: int, image: Tensor) -> Tensor:
    needed = count * image.numel()
    try:
        if needed > MAX_BATCH_BYTES:
            raise MemoryError
        return torch.empty((count, *image.shape), dtype=torch.uint8)
    except (MemoryError, RuntimeError):
        shape = "x".join(map(str, image.shape))
        raise DataError(
            f"{count} images of shape {shape} take {needed / 2**30:.1f} GiB; draw fewer with --limit"
        ) from None
