from __future__ import annotations

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from untrojan.data.decoding import FORMATS, decode, decode_all, require_shape, shown
from untrojan.errors import DataError, UnsupportedError


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header announces a size that its data does not have."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP", "TIFF", "PPM"])
def test_lossless_formats_are_exact(noise, form):
    options = {"lossless": True} if form == "WEBP" else {}
    decoded = decode(encode(Image.fromarray(noise), form, **options))
    assert decoded.dtype == torch.uint8
    assert decoded.is_contiguous()
    assert torch.equal(decoded, torch.from_numpy(noise).permute(2, 0, 1))


def test_jpeg_is_what_pillow_makes_of_it(noise):
    content = encode(Image.fromarray(noise), "JPEG")
    assert torch.equal(decode(content), torch.from_numpy(np.array(Image.open(io.BytesIO(content)))).permute(2, 0, 1))


def test_gif_counts_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    decoded = decode(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert decoded[:, 0, 0].tolist() == [255, 0, 0]


def test_a_path_is_read(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(encode(Image.new("L", (3, 2), 7)))
    assert decode(path).tolist() == [[[7, 7, 7], [7, 7, 7]]]


@pytest.mark.parametrize(
    ("mode", "form", "fill", "grey", "colour"),
    [
        ("1", "PNG", 1, 255, None),
        ("L", "PNG", 77, 77, None),
        ("LA", "PNG", (77, 0), 77, None),
        ("RGB", "PNG", (255, 0, 0), 76, (255, 0, 0)),
        ("RGBA", "PNG", (255, 0, 0, 0), 76, (255, 0, 0)),
        ("CMYK", "TIFF", (0, 255, 255, 0), 76, (255, 0, 0)),
        ("I;16", "PNG", 257 * 100, 100, None),
        ("I;16B", "TIFF", 65535, 255, None),
        ("I", "PPM", 257 * 3, 3, None),
    ],
)
def test_modes_and_channels(mode, form, fill, grey, colour):
    content = encode(Image.new(mode, (2, 2), fill), form)
    natural = decode(content)
    assert natural[:, 0, 0].tolist() == ([grey] if colour is None else list(colour))
    assert decode(content, channels=1).unique().tolist() == [grey]
    assert decode(content, channels=3)[:, 1, 1].tolist() == list(colour or (grey, grey, grey))


def test_sixteen_bits_are_scaled_and_rounded():
    levels = np.array([[0, 128, 129, 256, 257, 65406, 65407, 65535]], dtype=np.uint16)
    assert decode(encode(Image.fromarray(levels))).flatten().tolist() == [0, 0, 1, 1, 1, 254, 255, 255]


@pytest.mark.parametrize("transparency", [None, 0, b"\x00\x80"])
def test_a_palette_becomes_colour_whatever_its_transparency(transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    options = {} if transparency is None else {"transparency": transparency}
    decoded = decode(encode(image, "PNG", **options))
    assert decoded.tolist() == [[[10, 40]], [[20, 50]], [[30, 60]]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_known_range_are_refused(mode):
    with pytest.raises(DataError, match=r"x\.tif: .* no known range"):
        decode(encode(Image.new(mode, (2, 2), 3), "TIFF"), name="x.tif")


def test_exif_orientation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encode(Image.new("RGB", (6, 2)), "JPEG", exif=exif)).shape == (3, 2, 6)


def test_resizing_is_antialiased_bilinear(noise):
    want = Image.fromarray(noise).resize((7, 5), Image.Resampling.BILINEAR)
    assert torch.equal(
        decode(encode(Image.fromarray(noise)), size=(5, 7)), torch.from_numpy(np.array(want)).movedim(2, 0)
    )
    stripes = Image.fromarray(np.tile(np.array([0, 255], dtype=np.uint8), (8, 16)))
    assert decode(encode(stripes), size=(2, 4))[0, :, 1:3].float().sub(127.5).abs().max() < 20


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_numbers_of_channels_are_unsupported(png, channels):
    with pytest.raises(UnsupportedError, match="1 or 3 channels"):
        decode(png(1), channels=channels)


@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_image_is_refused(noise, form):
    content = encode(Image.fromarray(noise), form)
    with pytest.raises(DataError, match="x: "):
        decode(content[: len(content) // 2], name="x")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89PNG\r\n\x1a\n", b"P6 0 0 255\n"]
)
def test_what_is_no_image_is_refused(content):
    with pytest.raises(DataError):
        decode(content)


def test_formats_beyond_the_list_are_not_even_tried():
    with pytest.raises(DataError, match="not an image of a kind that is read"):
        decode(encode(Image.new("RGB", (4, 4)), "ICO"))


@pytest.mark.parametrize("side", [9_000, 10_000, 60_000, 2**31 - 1])
def test_a_huge_header_is_refused_without_decoding(side):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever filters the caller has
        with pytest.raises(DataError, match=r"pixels|readable"):
            decode(png_claiming(side, side))


def test_limits_can_be_given(png):
    assert decode(png(1), max_pixels=16).shape == (3, 4, 4)
    with pytest.raises(DataError, match="4x4 pixels are more than the limit of 15"):
        decode(png(1), max_pixels=15)
    with pytest.raises(DataError, match="limit of 10 bytes"):
        decode(png(1), max_bytes=10)


def test_a_large_file_is_refused_before_decoding(png, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png(1))
    with pytest.raises(DataError, match=r"x\.png: .*limit of 10 bytes"):
        decode(path, max_bytes=10)


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_what_is_no_file_is_refused(tmp_path, kind):
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(DataError, match=f"{kind}: no"):
        decode(path)


def test_the_callers_warning_filters_come_back(png):
    before = list(warnings.filters)
    decode(png(1))
    assert warnings.filters == before


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(FORMATS), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6), st.data())
def test_damaged_images_give_pixels_or_dataerror(form, changes, data):
    pixels = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)
    content = bytearray(encode(Image.fromarray(pixels), form))
    for place, value in changes:
        content[place % len(content)] = value
    content = content[: data.draw(st.integers(0, len(content)))]
    decoded = pixels_or_message(bytes(content))
    assert decoded.isprintable() if isinstance(decoded, str) else decoded.shape == (3, 8, 8)


def pixels_or_message(content: bytes) -> torch.Tensor | str:
    try:
        return decode(content, channels=3, size=(8, 8), max_pixels=10**6)
    except DataError as error:
        return str(error)


def test_a_batch_is_converted_to_the_shape_asked_for(png):
    pictures = [("a", png(9)), ("b", png(9, (8, 2))), ("c", png(9, mode="L"))]
    batch = decode_all(pictures, 3, input_shape=(1, 6, 5))
    assert batch.shape == (3, 1, 6, 5)
    assert batch[2].unique().tolist() == [9]


@pytest.mark.parametrize("other", [{"size": (4, 5)}, {"mode": "L"}])
def test_images_that_differ_are_never_adapted_to_the_first(png, other):
    with pytest.raises(DataError, match=r"first is 3x4x4, second is .*--input 3x4x4"):
        decode_all([("first", png(1)), ("second", png(1, **other))], 2)


def test_a_default_size_adapts_sizes_not_channels(png):
    assert decode_all([("a", png(1)), ("b", png(1, (9, 7)))], 2, size=(6, 6)).shape == (2, 3, 6, 6)
    with pytest.raises(DataError, match="differ in shape"):
        decode_all([("a", png(1)), ("b", png(1, mode="L"))], 2, size=(6, 6))


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_images_than_announced_is_refused(png, count):
    with pytest.raises(DataError, match=f"{count} images were announced"):
        decode_all([("a", png(1)), ("b", png(2))], count)


def test_a_batch_beyond_memory_is_refused(png):
    with pytest.raises(DataError, match="GiB; draw fewer with --limit"):
        decode_all([("a", png(1))], 10**12)


@pytest.mark.parametrize("shape", [(2, 4, 4), (3, 0, 4), (3, 10**5, 10**5), (3, 4)])
def test_impossible_shapes_are_unsupported(shape):
    with pytest.raises(UnsupportedError, match="1xHxW or 3xHxW"):
        require_shape(shape)


def test_names_reach_messages_printable_and_short():
    assert shown("gut/Straße.png") == "gut/Straße.png"
    assert shown("a\nb\x1b[31m\udc80") == r"a\nb\x1b[31m\udc80"
    assert len(shown("x" * 5000)) < 400
