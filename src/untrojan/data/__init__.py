"""Images and labels from wherever they lie. A new kind of source is a file here and a line in ``SOURCES``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from untrojan.data.decoding import decode, decode_all, reason, require_shape, shown
from untrojan.data.digits import Digits, load_digits
from untrojan.data.folder import FolderImages
from untrojan.data.hub import HubImages
from untrojan.data.images import ImageSet, image_hashes
from untrojan.data.named import NAMED, NamedImages
from untrojan.data.parquet import ParquetImages
from untrojan.data.source import Source
from untrojan.data.split import balanced_sample, split_defence
from untrojan.data.unlabelled import image_paths, load_images
from untrojan.errors import DataError, UsageError

SOURCES: dict[str, type[Source]] = {
    "digits": Digits,
    "named": NamedImages,
    "hub": HubImages,
    "parquet": ParquetImages,
    "folder": FolderImages,
}
"""Asked in this order; the first that takes what the user wrote reads it."""

__all__ = [
    "NAMED",
    "SOURCES",
    "ImageSet",
    "Source",
    "balanced_sample",
    "decode",
    "image_hashes",
    "image_paths",
    "load_data",
    "load_digits",
    "load_images",
    "split_defence",
]


def load_data(
    spec: str,
    *,
    input_shape: tuple[int, int, int] | None,
    limit: int | None = None,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
) -> ImageSet:
    """Labelled images from what a user writes for DATA (the forms in ``SOURCES``).

    input_shape: (C, H, W) to convert and resize to; None keeps the data's own, and then all images must be alike.
    limit: draw that many, balanced over classes, by ``seed``; only these are decoded. class_names: the classifier's, to
    number the labels as it does.

    Raises UsageError for a senseless limit or split, UnsupportedError for a shape or source that is not handled,
    MissingExtraError if a source's package is not installed, DataError for everything that is wrong with the data.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit is a number of images, at least 1, got {limit}")
    if input_shape is not None:
        require_shape(input_shape)
    if not spec:
        raise UsageError(f"no data was given; expected {_forms()}")
    source = _find(str(spec))(str(spec), class_names)
    count = len(source.labels)
    if count == 0:
        raise DataError(f"{source.where}: no images")
    index = torch.arange(count) if limit is None else balanced_sample(source.labels, limit, seed)
    images = decode_all(source.pictures(index), len(index), input_shape=input_shape, size=source.size)
    where = source.where if len(index) == count else f"{len(index)} of {count} images of {source.where}, seed {seed}"
    return ImageSet(images, source.labels[index], source.class_names, where, source.by_order)


def _find(spec: str) -> type[Source]:
    try:
        for source in SOURCES.values():
            if source.takes(spec):
                return source
        exists, hint = Path(spec).exists(), _nearest(Path(spec))
    except (OSError, ValueError) as error:
        raise DataError(f"data '{shown(spec)}': cannot be read ({reason(error)})") from None
    came = "a file of a kind that is not read" if exists else f"no such file or folder ({hint})"
    raise DataError(f"data '{shown(spec)}': {came}; expected {_forms()}")


def _forms() -> str:
    return "; ".join(source.form for source in SOURCES.values())


def _nearest(path: Path) -> str:
    """What there is instead of a path that does not exist."""
    parent = next((p for p in path.parents if p.is_dir()), Path())
    names = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
    if not names:
        return f"{shown(parent)} is empty"
    listed = ", ".join(shown(name) for name in names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{shown(parent)} holds {listed}"
