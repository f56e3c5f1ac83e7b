"""What a trigger is."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from untrojan.errors import ShapeError

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def to_grid(images: Tensor) -> Tensor:
    """Clip to [0, 1] and round to 1/255, the values that an 8-bit image can hold. Shape and dtype are kept."""
    return (images.clamp(0, 1) * 255).round() / 255


class Trigger(ABC):
    """A function on images in [0, 1]. Its tensors are float32 and never need a gradient."""

    kind: ClassVar[str]

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that define this trigger, by their names in the file."""

    @abstractmethod
    def apply(self, images: Tensor) -> Tensor:
        """The stamped images before clipping and rounding: float [N, C, H, W] to the same shape."""

    def stamp(self, images: Tensor) -> Tensor:
        """The stamped images, clipped to [0, 1] and rounded to 1/255.

        images: float [N, C, H, W] in [0, 1], on any device. Raises ShapeError if the trigger has another size, or if
        the images are not floating-point numbers.
        """
        want = self.image_shape
        if not images.is_floating_point():
            raise ShapeError(f"a trigger is stamped on float images in [0, 1], got {images.dtype}; divide by 255 first")
        if images.ndim != 4 or (images.shape[1] != want[0] and want[0] != 1) or images.shape[2:] != want[1:]:
            raise ShapeError(
                f"the trigger is for images of shape {'x'.join(map(str, want))}, "
                f"got a batch of shape {tuple(images.shape)}"
            )
        return to_grid(self.apply(images))

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that it can be stamped on."""

    @property
    @abstractmethod
    def size(self) -> float:
        """How much of the image it takes: the statistic of its kind (mask L1 in pixels, L2 norm of delta, ...)."""

    def sha256(self) -> str:
        """A hash of kind and tensors."""
        digest = hashlib.sha256(self.kind.encode())
        for name, tensor in sorted(self.tensors().items()):
            digest.update(name.encode() + str(tuple(tensor.shape)).encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def require_range(name: str, tensor: Tensor, low: float, high: float) -> None:
    """Raise ShapeError unless a tensor is floating-point, finite, not empty, and within [low, high]."""
    tensor = tensor.detach()
    if tensor.dtype not in _FLOATS or not bool(torch.isfinite(tensor).all()):
        raise ShapeError(f"{name} must be finite floating-point numbers, got {tensor.dtype}")
    if tensor.numel() == 0 or float(tensor.min()) < low or float(tensor.max()) > high:
        raise ShapeError(f"{name} must lie in [{low}, {high}]")
