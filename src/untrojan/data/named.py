"""The data sets of the paper by name, from a folder that holds them. A new set is a line in ``NAMED``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from untrojan.data.decoding import Picture, shown
from untrojan.data.folder import FolderImages
from untrojan.data.hub import HubImages
from untrojan.data.parquet import ParquetImages
from untrojan.data.query import of_classes, part_of, told
from untrojan.data.source import Source
from untrojan.errors import DataError, UsageError

VARIABLE = "UNTROJAN_DATA"


@dataclass(frozen=True)
class DataSet:
    """A set: the size (H, W) at which the paper uses it, where the Hugging Face hub has it, and the names that its
    splits may have."""

    size: tuple[int, int]
    hub: str
    train: tuple[str, ...] = ("train",)
    test: tuple[str, ...] = ("test", "validation", "valid", "val")


NAMED: dict[str, DataSet] = {
    "cifar10": DataSet((32, 32), "uoft-cs/cifar10"),
    "cifar100": DataSet((32, 32), "uoft-cs/cifar100"),
    "gtsrb": DataSet((32, 32), "tanganke/gtsrb"),
    "imagenette": DataSet((256, 256), "frgfm/imagenette"),
    "tiny-imagenet": DataSet((64, 64), "zh-plus/tiny-imagenet"),
}


class NamedImages(Source):
    """``NAME?split=train&classes=10``: a set of ``NAMED`` in ``$UNTROJAN_DATA/NAME``; the test split by default.

    classes: the first so many alone, or those of the numbers 3,5,8. The folder holds ``SPLIT.parquet``, or a folder
    ``SPLIT`` with parquet files or with one sub-folder per class.
    """

    form = (
        f"{', '.join(NAMED)} (with {VARIABLE} set), each with ?split=train or ?split=test, and &classes=N or "
        "&classes=A,B,..."
    )

    def __init__(self, spec: str, class_names: Sequence[str] | None = None):
        name = spec.partition("?")[0]
        split, classes = part_of(spec)
        split = split or "test"
        source = _source(name, split, None if classes else class_names)
        self.labels, self.class_names = source.labels, source.class_names
        self.where, self.size = f"{name} ({split} split)", NAMED[name].size
        self._source, self._index = source, torch.arange(len(source.labels))
        if classes is not None:
            self.where += f", {told(classes)}"
            self._index, self.labels, self.class_names = of_classes(
                self.labels, self.class_names, classes, class_names, self.where
            )

    @classmethod
    def takes(cls, spec: str) -> bool:
        return spec.partition("?")[0] in NAMED and not Path(spec).exists()

    def pictures(self, index: Tensor) -> Iterator[tuple[str, Picture]]:
        return self._source.pictures(self._index[index])


def _source(name: str, split: str, class_names: Sequence[str] | None) -> Source:
    """The split in the folder that ``VARIABLE`` names; without one, from the hub, if its client is installed."""
    root = os.environ.get(VARIABLE, "")
    if root:
        place = _place(name, split, root)
        return next(kind for kind in (ParquetImages, FolderImages) if kind.takes(place))(place, class_names)
    if find_spec("huggingface_hub") is None:
        raise DataError(
            f"data '{name}': give --data-dir, or set {VARIABLE}, to the folder that holds {name}/{split}.parquet; or "
            'pip install "untrojan[hub]" to fetch it from the Hugging Face hub'
        )
    names = getattr(NAMED[name], split)
    for position, alias in enumerate(names):
        try:
            return HubImages(f"hf:{NAMED[name].hub}?split={alias}", class_names)
        except UsageError:
            if position + 1 == len(names):
                raise
    raise DataError(f"data '{name}': no split of the hub's set is called {' or '.join(names)}")


def _place(name: str, split: str, root: str) -> str:
    folder = Path(root) / name
    found = [folder / f"{alias}{end}" for alias in getattr(NAMED[name], split) for end in (".parquet", "")]
    place = next((path for path in found if path.exists()), None)
    if place is None:
        raise DataError(f"data '{name}': {VARIABLE} is {shown(root)}, and there is no {name}/{split}.parquet in it")
    return str(place)
