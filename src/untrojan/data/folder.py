"""A folder with one sub-folder of images per class."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from untrojan.data.decoding import SUFFIXES, Picture, reason, shown
from untrojan.data.source import Source, numbers_of
from untrojan.errors import DataError

_EXPECTED = "expected one sub-folder per class with images (" + ", ".join(sorted(SUFFIXES)) + ") directly in it"


class FolderImages(Source):
    """``ROOT/CLASS/IMAGE``: the sub-folders of a folder are the classes, the images directly in them the data.

    Labels: if the classifier's class names are known and every sub-folder is one of them, by name, if need be without
    regard to case; else, if every
    sub-folder is a whole number of at most six digits, that number; else 0..K-1 in order of the sorted names, as
    torchvision's ImageFolder does. An order by sorted names needs an image in each sub-folder, for an empty one
    would shift the classes after it. Hidden files, files of other kinds and symbolic links that leave ROOT are passed
    over. Raises DataError if that leaves no image, or if only some sub-folders are classes of the classifier.
    """

    form = "a folder with one sub-folder per class"

    def __init__(self, spec: str, class_names: Sequence[str] | None = None):
        root = Path(spec)
        self.where = shown(root)
        folders = subfolders(root)
        if not folders:
            raise DataError(f"{self.where}: no sub-folders; {_EXPECTED}")
        self._paths: list[Path] = []
        images = {folder.name: image_files(folder, root) for folder in folders}
        if not any(images.values()):
            away = sum(not _lies_in(folder, os.path.realpath(root)) for folder in folders)
            links = f" ({away} of them are links that leave it, which are not followed)" if away else ""
            raise DataError(f"{self.where}: no images in its {len(folders)} sub-folders{links}; {_EXPECTED}")
        numbers, self.class_names = _class_numbers(images, class_names, self.where)
        self.by_order = class_names is None and self.class_names is not None
        labels: list[int] = []
        for name, paths in images.items():
            self._paths += paths
            labels += [numbers[name]] * len(paths)
        self.labels = torch.tensor(labels, dtype=torch.int64)

    @classmethod
    def takes(cls, spec: str) -> bool:
        return Path(spec).is_dir()

    def pictures(self, index: Tensor) -> Iterator[tuple[str, Picture]]:
        for number in index.tolist():
            path = self._paths[number]
            yield shown(path), path


def image_files(folder: Path, root: Path | None = None) -> list[Path]:
    """The images directly in a folder, by suffix, sorted by name, without hidden ones and those outside ``root``.

    root: default the folder itself. Raises DataError if the folder cannot be listed.
    """
    real_root = os.path.realpath(root or folder)
    if not _lies_in(folder, real_root):
        return []
    entries = [e for e in _entries(folder) if Path(e.name).suffix.lower() in SUFFIXES and _is(e, "file")]
    return [Path(e.path) for e in entries if not e.is_symlink() or _lies_in(e.path, real_root)]


def subfolders(root: Path) -> list[Path]:
    """The folders directly in ``root``, sorted by name, without hidden ones.

    Links to elsewhere are kept, since they have a place in the order of classes; ``image_files`` finds nothing there.
    """
    return [Path(e.path) for e in _entries(root) if _is(e, "folder")]


def _lies_in(path: str | Path, real_root: str) -> bool:
    """Whether a path lies in a folder once all symbolic links are resolved."""
    try:
        return os.path.commonpath([os.path.realpath(path), real_root]) == real_root
    except ValueError:  # another drive
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except (OSError, ValueError) as error:
        raise DataError(f"{shown(folder)}: the folder cannot be read ({reason(error)})") from None


def _is(entry: os.DirEntry[str], kind: str) -> bool:
    try:
        return entry.is_dir() if kind == "folder" else entry.is_file()
    except OSError:  # a loop of links
        return False


def _class_numbers(
    images: dict[str, list[Path]], wanted: Sequence[str] | None, where: str
) -> tuple[dict[str, int], tuple[str, ...] | None]:
    """The label of each sub-folder, and the class names by label (None if the folders are mere numbers)."""
    names = list(images)
    for name in names:
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise DataError(f"{where}: the name of sub-folder '{shown(name)}' is not UTF-8; rename it")
    numbers = None if wanted is None else numbers_of(names, wanted)
    if wanted is not None and numbers is not None:
        return dict(zip(names, numbers, strict=True)), tuple(wanted)
    if wanted is not None and len(set(wanted)) == len(wanted):
        known = {name.casefold() for name in wanted}
        strangers = [name for name in names if name.casefold() not in known]
        if len(strangers) < len(names):
            raise DataError(
                f"{where}: some sub-folders are named like classes of the classifier, but '{shown(strangers[0])}' "
                "is not; rename or remove it"
            )
    if all(re.fullmatch(r"[0-9]{1,6}", name) for name in names):
        twice = [name for name in names if sum(int(name) == int(other) for other in names) > 1]
        if twice:
            raise DataError(f"{where}: sub-folders '{twice[0]}' and '{twice[1]}' are one number; rename one of them")
        return {name: int(name) for name in names}, None if wanted is None else tuple(wanted)
    if wanted is not None and len(wanted) != len(names):
        raise DataError(
            f"{where}: {len(names)} sub-folders, none named like one of the classifier's {len(wanted)} classes, "
            "so that there is no telling which is which; name them after the classes, or by their numbers"
        )
    for name, paths in images.items():
        if not paths:
            raise DataError(
                f"{where}: sub-folder '{shown(name)}' holds no images, so that the order of the classes is in doubt; "
                f"add images or remove it ({_EXPECTED})"
            )
    return {name: number for number, name in enumerate(names)}, tuple(names if wanted is None else wanted)
