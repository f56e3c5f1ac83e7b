"""Triggers: what an attacker stamps on an image, true or estimated, and their file.

Attacks make them, detection estimates them, correction and evaluation stamp them.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from untrojan.errors import CheckpointError, ShapeError, UsageError
from untrojan.setting import Setting
from untrojan.storage import read_safetensors, write_bytes

FORMAT = "untrojan-trigger-1"
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


class PatchTrigger(Trigger):
    """x becomes (1 - mask) x + mask pattern. mask: [1, H, W] in [0, 1]; pattern: [C, H, W] in [0, 1]."""

    kind = "patch"

    def __init__(self, mask: Tensor, pattern: Tensor):
        if mask.ndim != 3 or mask.shape[0] != 1 or pattern.ndim != 3 or pattern.shape[1:] != mask.shape[1:]:
            raise ShapeError(
                "a patch trigger has mask [1,H,W] and pattern [C,H,W], "
                f"got {list(mask.shape)} and {list(pattern.shape)}"
            )
        _require_range("mask", mask, 0, 1)
        _require_range("pattern", pattern, 0, 1)
        self.mask = mask.detach().to(torch.float32)
        self.pattern = pattern.detach().to(torch.float32)

    def tensors(self) -> dict[str, Tensor]:
        return {"mask": self.mask, "pattern": self.pattern}

    def apply(self, images: Tensor) -> Tensor:
        mask, pattern = self.mask.to(images.device), self.pattern.to(images.device)
        return images + mask * (pattern - images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.pattern.shape[0], self.pattern.shape[1], self.pattern.shape[2]

    @property
    def size(self) -> float:
        """L1 norm of the mask, in pixels."""
        return float(self.mask.sum())


class AdditiveTrigger(Trigger):
    """x becomes x + delta, clipped. delta: [C, H, W] in [-1, 1]."""

    kind = "additive"

    def __init__(self, delta: Tensor):
        if delta.ndim != 3:
            raise ShapeError(f"an additive trigger has delta [C,H,W], got {list(delta.shape)}")
        _require_range("delta", delta, -1, 1)
        self.delta = delta.detach().to(torch.float32)

    def tensors(self) -> dict[str, Tensor]:
        return {"delta": self.delta}

    def apply(self, images: Tensor) -> Tensor:
        return images + self.delta.to(images.device)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.delta.shape[0], self.delta.shape[1], self.delta.shape[2]

    @property
    def size(self) -> float:
        """L2 norm of delta."""
        return float(self.delta.norm())


class WarpTrigger(Trigger):
    """x is sampled at other places. grid: [H, W, 2] in [-1, 1], (x, y) as ``grid_sample`` with align_corners takes it.

    It suits images with any number of channels.
    """

    kind = "warp"

    def __init__(self, grid: Tensor):
        if grid.ndim != 3 or grid.shape[2] != 2:
            raise ShapeError(f"a warp trigger has grid [H,W,2], got {list(grid.shape)}")
        _require_range("grid", grid, -1, 1)
        self.grid = grid.detach().to(torch.float32)

    def tensors(self) -> dict[str, Tensor]:
        return {"grid": self.grid}

    def apply(self, images: Tensor) -> Tensor:
        grid = self.grid.to(images.device).expand(len(images), -1, -1, -1)
        return functional.grid_sample(images.float(), grid, mode="bilinear", align_corners=True).to(images.dtype)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 1, self.grid.shape[0], self.grid.shape[1]

    @property
    def size(self) -> float:
        """Mean distance that a pixel is moved, in pixels."""
        height, width = self.grid.shape[:2]
        still = torch.stack(torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"))
        moved = (self.grid.cpu() - still.flip(0).permute(1, 2, 0)) * torch.tensor([width - 1, height - 1]) / 2
        return float(moved.norm(dim=2).mean())


TRIGGER_KINDS: dict[str, type[Trigger]] = {"patch": PatchTrigger, "additive": AdditiveTrigger, "warp": WarpTrigger}


def trigger_from_tensors(kind: str, tensors: Mapping[str, Tensor], where: str) -> Trigger:
    """Build a trigger of a registered kind; raises CheckpointError, naming ``where``, if the tensors do not fit it."""
    if kind not in TRIGGER_KINDS:
        raise CheckpointError(f"{where}: trigger kind {kind[:80]!r} is not one of {', '.join(TRIGGER_KINDS)}")
    try:
        return TRIGGER_KINDS[kind](**tensors)
    except TypeError:
        raise CheckpointError(f"{where}: not a valid {kind} trigger: it has too few or too many tensors") from None
    except ShapeError as error:
        raise CheckpointError(f"{where}: not a valid {kind} trigger: {error}") from None


def save_trigger(path: str | Path, trigger: Trigger, setting: Setting) -> None:
    """Write a trigger file (``interface.md``: format untrojan-trigger-1), all of it or nothing."""
    # A copy of each: the file format has no tensors that share memory, such as a mask that is its own pattern.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in trigger.tensors().items()}
    metadata = {"format": FORMAT, "kind": trigger.kind, "setting": str(setting)}
    write_bytes(path, safetensors.torch.save(tensors, metadata=metadata))


def load_trigger(path: str | Path) -> tuple[Trigger, Setting]:
    """Read a trigger file; raises CheckpointError if it is not one."""
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a trigger file, its metadata has no format '{FORMAT}'")
    try:
        setting = Setting.parse(metadata.get("setting", ""))
    except UsageError as error:
        raise CheckpointError(f"{path}: not a valid trigger file: {error}") from None
    return trigger_from_tensors(metadata.get("kind", ""), tensors, str(path)), setting


def _require_range(name: str, tensor: Tensor, low: float, high: float) -> None:
    tensor = tensor.detach()
    if tensor.dtype not in _FLOATS or not bool(torch.isfinite(tensor).all()):
        raise ShapeError(f"{name} must be finite floating-point numbers, got {tensor.dtype}")
    if tensor.numel() == 0 or float(tensor.min()) < low or float(tensor.max()) > high:
        raise ShapeError(f"{name} must lie in [{low}, {high}]")
