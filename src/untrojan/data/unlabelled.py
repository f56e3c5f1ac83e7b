"""Images without labels, named one by one or by their folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from untrojan.data.decoding import decode_all, reason, shown
from untrojan.data.folder import image_files
from untrojan.errors import DataError


def image_paths(paths: Sequence[Path]) -> list[Path]:
    """Image files in the order given; a folder stands for the images directly in it, sorted by name.

    Raises DataError if a path does not exist, a folder holds no image or nothing is given.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        try:
            exists, is_folder = path.exists(), path.is_dir()
        except (OSError, ValueError) as error:
            raise DataError(f"{shown(path)}: cannot be read ({reason(error)})") from None
        if not exists:
            raise DataError(f"{shown(path)}: no such file or folder; give image files or a folder of them")
        found = image_files(path) if is_folder else [path]
        if not found:
            raise DataError(f"{shown(path)}: no images directly in this folder; give image files or a folder of them")
        files += found
    if not files:
        raise DataError("no images were given; give image files or a folder of them")
    return files


def load_images(paths: Sequence[Path], *, input_shape: tuple[int, int, int] | None) -> Tensor:
    """The images that ``image_paths`` finds, as uint8 [N, C, H, W], converted and resized to ``input_shape``.

    Raises DataError if one cannot be read, or if they differ in shape and ``input_shape`` is None.
    """
    files = image_paths(paths)
    return decode_all(((shown(file), file) for file in files), len(files), input_shape=input_shape)
