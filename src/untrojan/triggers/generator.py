"""Triggers that a small network paints for each image: kinds ``generator:NAME``, one fixed architecture each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from untrojan.errors import ShapeError
from untrojan.triggers.base import Trigger, require_range

CHUNK = 128
"""Images that are painted at a time."""


class Painter(nn.Module):
    """Images [N, channels, H, W] to [N, outputs, H, W]: down by four in two steps, and up again beside shortcuts."""

    def __init__(self, channels: int, outputs: int, width: int = 8):
        super().__init__()
        self.down1 = nn.Conv2d(channels, width, 3, 1, 1)
        self.down2 = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.down3 = nn.Conv2d(2 * width, 4 * width, 3, 2, 1)
        self.up2 = nn.Conv2d(4 * width, 2 * width, 3, 1, 1)
        self.up1 = nn.Conv2d(2 * width, width, 3, 1, 1)
        self.last = nn.Conv2d(width, outputs, 3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = torch.relu(self.down1(images))
        middle = torch.relu(self.down2(fine))
        coarse = torch.relu(self.down3(middle))
        back = torch.relu(self.up2(functional.interpolate(coarse, size=middle.shape[2:])) + middle)
        back = torch.relu(self.up1(functional.interpolate(back, size=fine.shape[2:])) + fine)
        painted: Tensor = self.last(back)
        return painted


class GeneratorTrigger(Trigger):
    """Base of the kinds below. ``shape``: float32 [3], the (C, H, W) of the images; the networks' weights by name.

    Stamping runs the networks in float64: what is left of the order of summation is then far below the step of 1/255,
    so a stamped image does not depend on how many others are stamped with it, nor on the number of threads.
    """

    parts: ClassVar[Mapping[str, int]]
    """Name of each network, and its outputs per image channel (0: one output in all)."""

    def __init__(self, **tensors: Tensor):
        shape = tensors.get("shape")
        if shape is None or shape.shape != (3,):
            raise ShapeError("a generated trigger has a tensor 'shape' of 3 values: channels, height, width")
        require_range("shape", shape, 1, 16384)
        self._shape = (int(shape[0]), int(shape[1]), int(shape[2]))
        if shape.tolist() != list(self._shape):
            raise ShapeError("'shape' must hold whole numbers")
        self._tensors = {name: value.detach().to(torch.float32) for name, value in tensors.items()}
        wanted = {f"{n}.{k}": v.shape for n, net in self.networks(self._shape[0]).items() for k, v in _state(net)}
        wanted |= {"shape": torch.Size([3])} | {name: torch.Size([1]) for name in self.scalars}
        for name in sorted(wanted.keys() | tensors.keys()):
            if name not in tensors or name not in wanted or tensors[name].shape != wanted[name]:
                came = list(tensors[name].shape) if name in tensors else "nothing"
                raise ShapeError(
                    f"'{name[:80]}': expected {list(wanted.get(name, ())) or 'no such tensor'}, got {came}"
                )
            require_range(name, tensors[name], -1e6, 1e6)
        self._ready: dict[torch.device, dict[str, nn.Module]] = {}

    scalars: ClassVar[tuple[str, ...]] = ()
    """Names of further tensors of one value."""

    @classmethod
    def networks(cls, channels: int) -> dict[str, nn.Module]:
        """Networks of this kind, by name, on the meta device: they have shapes but no weights yet."""
        with torch.device("meta"):
            return {name: Painter(channels, factor * channels or 1) for name, factor in cls.parts.items()}

    @staticmethod
    @abstractmethod
    def paint(images: Tensor, networks: Mapping[str, nn.Module], scalars: Mapping[str, Tensor]) -> Tensor:
        """The stamped images before clipping and rounding; differentiable, for training the networks."""

    @classmethod
    def of(
        cls, image_shape: tuple[int, int, int], networks: Mapping[str, nn.Module], **scalars: float
    ) -> GeneratorTrigger:
        """The trigger that these networks paint."""
        tensors = {f"{n}.{k}": v.cpu().clone() for n, network in networks.items() for k, v in _state(network)}
        tensors |= {name: torch.tensor([value], dtype=torch.float32) for name, value in scalars.items()}
        return cls(shape=torch.tensor(image_shape, dtype=torch.float32), **tensors)

    def tensors(self) -> dict[str, Tensor]:
        return dict(self._tensors)

    @torch.no_grad()
    def apply(self, images: Tensor) -> Tensor:
        if images.shape[1] != self._shape[0]:
            raise ShapeError(f"the trigger is for images of {self._shape[0]} channels, got {images.shape[1]}")
        networks = self._on(images.device)
        scalars = {name: self._tensors[name].to(images.device, torch.float64) for name in self.scalars}
        painted = [self.paint(part.double(), networks, scalars).to(images.dtype) for part in images.split(CHUNK)]
        return torch.cat(painted) if painted else images

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self._shape

    def _on(self, device: torch.device) -> dict[str, nn.Module]:
        if device not in self._ready:
            networks = self.networks(self._shape[0])
            for name, network in networks.items():
                own = {k: self._tensors[f"{name}.{k}"].to(device, torch.float64) for k, _ in _state(network)}
                network.load_state_dict(own, assign=True)
                networks[name] = network.eval().requires_grad_(False)
            self._ready[device] = networks
        return self._ready[device]


class InputAwareTrigger(GeneratorTrigger):
    """x becomes (1 - m(x)) x + m(x) p(x): where and what the patch is depends on the image.

    Source: Nguyen, Tran, "Input-aware dynamic backdoor attack", NeurIPS 2020 (with smaller networks).
    """

    kind = "generator:input-aware"
    parts: ClassVar = {"pattern": 1, "mask": 0}

    @staticmethod
    def paint(images: Tensor, networks: Mapping[str, nn.Module], scalars: Mapping[str, Tensor]) -> Tensor:
        del scalars
        pattern = torch.sigmoid(networks["pattern"](images))
        return images + InputAwareTrigger.mask(images, networks) * (pattern - images)

    @staticmethod
    def mask(images: Tensor, networks: Mapping[str, nn.Module]) -> Tensor:
        """[N, 1, H, W] in [0, 1]; steep, so that it is nearly a set of pixels."""
        return torch.sigmoid(10 * networks["mask"](images))

    @property
    def size(self) -> float:
        """L1 norm of the mask on a grey image, in pixels."""
        grey = torch.full((1, *self._shape), 0.5, dtype=torch.float64)
        with torch.no_grad():
            return float(self.mask(grey, self._on(grey.device)).sum())


class WassersteinTrigger(GeneratorTrigger):
    """x becomes x + strength tanh(g(x)): every image gets a faint noise of its own. strength: [1], in [0, 1] units.

    Source: Doan, Lao, Li, "Backdoor attack with imperceptible input and latent modification", NeurIPS 2021 (with a
    smaller network).
    """

    kind = "generator:wasserstein"
    parts: ClassVar = {"noise": 1}
    scalars: ClassVar = ("strength",)

    @staticmethod
    def paint(images: Tensor, networks: Mapping[str, nn.Module], scalars: Mapping[str, Tensor]) -> Tensor:
        return images + scalars["strength"] * torch.tanh(networks["noise"](images))

    @property
    def size(self) -> float:
        """L2 norm of the noise on a grey image."""
        grey = torch.full((1, *self._shape), 0.5)
        return float((self.apply(grey) - grey).norm())


def _state(network: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, value.detach()) for name, value in network.state_dict().items()]
