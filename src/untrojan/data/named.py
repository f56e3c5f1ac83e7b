"""The data sets of the paper by name, from a folder that holds them. A new set is a line in ``NAMED``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from untrojan.data.decoding import Picture, shown
from untrojan.data.folder import FolderImages
from untrojan.data.parquet import ParquetImages
from untrojan.data.source import Source
from untrojan.errors import DataError, UsageError

VARIABLE = "UNTROJAN_DATA"
SPLITS = ("train", "test")


@dataclass(frozen=True)
class DataSet:
    """A set: the size (H, W) at which the paper uses it, and the names under which its splits may lie."""

    size: tuple[int, int]
    train: tuple[str, ...] = ("train",)
    test: tuple[str, ...] = ("test", "validation", "valid", "val")


NAMED: dict[str, DataSet] = {
    "cifar10": DataSet((32, 32)),
    "cifar100": DataSet((32, 32)),
    "gtsrb": DataSet((32, 32)),
    "imagenette": DataSet((256, 256)),
    "tiny-imagenet": DataSet((64, 64)),
}


class NamedImages(Source):
    """``NAME`` or ``NAME?split=train``: a set of ``NAMED`` in ``$UNTROJAN_DATA/NAME``; the test split by default.

    The folder holds ``SPLIT.parquet``, or a folder ``SPLIT`` with parquet files or with one sub-folder per class.
    """

    form = f"{', '.join(NAMED)} (with {VARIABLE} set), each with ?split=train or ?split=test"

    def __init__(self, spec: str, class_names: Sequence[str] | None = None):
        name, _, query = spec.partition("?")
        key, _, split = query.partition("=") if query else ("split", "=", "test")
        if key != "split" or split not in SPLITS:
            raise UsageError(f"data '{shown(spec)}': expected {name}, {name}?split=train or {name}?split=test")
        place = _place(name, split)
        source = next(kind for kind in (ParquetImages, FolderImages) if kind.takes(place))(place, class_names)
        self.labels, self.class_names = source.labels, source.class_names
        self.where, self.size = f"{name} ({split} split)", NAMED[name].size
        self._source = source

    @classmethod
    def takes(cls, spec: str) -> bool:
        return spec.partition("?")[0] in NAMED and not Path(spec).exists()

    def pictures(self, index: Tensor) -> Iterator[tuple[str, Picture]]:
        return self._source.pictures(index)


def _place(name: str, split: str) -> str:
    root = os.environ.get(VARIABLE, "")
    if not root:
        raise DataError(
            f"data '{name}': set {VARIABLE} to the folder that holds {name}/{split}.parquet, or give a path"
        )
    folder = Path(root) / name
    found = [folder / f"{alias}{end}" for alias in getattr(NAMED[name], split) for end in (".parquet", "")]
    place = next((path for path in found if path.exists()), None)
    if place is None:
        raise DataError(f"data '{name}': {VARIABLE} is {shown(root)}, and there is no {name}/{split}.parquet in it")
    return str(place)
