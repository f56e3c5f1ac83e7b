"""A set of labelled images in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from untrojan.errors import DataError


def image_hashes(images: Tensor) -> tuple[str, ...]:
    """The identity of each image of a uint8 batch [N, C, H, W]: SHA-256 over its shape and its pixel bytes.

    It depends neither on the file the image came from, nor on its label or place in the batch.
    """
    if images.ndim != 4 or images.dtype != torch.uint8:
        raise DataError(f"expected uint8 images [N,C,H,W], got {images.dtype} {list(images.shape)}")
    shape = ("x".join(map(str, images.shape[1:])) + "|").encode()
    pixels = images.detach().cpu().contiguous().numpy()
    return tuple(hashlib.sha256(shape + image.tobytes()).hexdigest() for image in pixels)


def require_label_each(images: Tensor, labels: Tensor) -> None:
    """Raise DataError unless there is one int64 label for each image: [N] for [N, ...]."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        came = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise DataError(f"expected one int64 label for each of the {len(images)} images, got {came}")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels.

    images: uint8 [N, C, H, W]; labels: int64 [N]; class_names: by label, None if they are not known; where: a
    description of the origin, for people; by_order: whether the labels are but the order of these names, so that a
    class without a folder would have shifted those after it. Raises DataError if the tensors are of another kind.

    >>> digits = ImageSet(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([1, 0, 1]), None, "an example")
    >>> digits.classes_present()
    (0, 1)
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...] | None
    where: str
    by_order: bool = False

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise DataError(f"expected uint8 images [N,C,H,W], got {self.images.dtype} {list(self.images.shape)}")
        require_label_each(self.images, self.labels)

    def __len__(self) -> int:
        return len(self.images)

    def hashes(self) -> tuple[str, ...]:
        """SHA-256 of each image, over shape and pixel bytes; equal images have equal hashes."""
        return image_hashes(self.images)

    def select(self, index: Tensor) -> ImageSet:
        """The images that ``index`` (int64 [M] or bool [N]) picks, in its order."""
        return ImageSet(self.images[index], self.labels[index], self.class_names, self.where, self.by_order)

    def without(self, hashes: Collection[str]) -> tuple[ImageSet, int]:
        """The images whose hash is not among ``hashes``, and how many were left out."""
        unwanted = frozenset(hashes)
        keep = torch.tensor([h not in unwanted for h in self.hashes()], dtype=torch.bool)
        return self.select(keep), int((~keep).sum())

    def classes_present(self) -> tuple[int, ...]:
        """The labels that occur, ascending."""
        return tuple(int(label) for label in torch.unique(self.labels))

    def require_labels(self, classes: int) -> None:
        """Raise DataError unless there are images of at least two classes and every label lies in 0..classes-1."""
        if len(self) == 0:
            raise DataError(f"{self.where}: no images; give a set with images of at least two classes")
        present = self.classes_present()
        for label in (present[0], present[-1]):
            if not 0 <= label < classes:
                raise DataError(
                    f"{self.where}: label {label} does not fit the classifier, which has {classes} classes "
                    f"(0..{classes - 1}); give images with the labels that it was trained on"
                )
        if len(present) == 1:
            raise DataError(
                f"{self.where}: every image is of class {present[0]}; images of at least two classes are needed"
            )
