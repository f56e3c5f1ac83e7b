"""What a kind of trigger is to the search for one: parameters, a stamp and a size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from untrojan.triggers import TRIGGER_KINDS, Trigger


class TriggerFamily(ABC):
    """A kind of trigger as something to optimise: P triggers side by side, one per problem in the batch.

    ``complete``: a large enough trigger of this kind makes any image into any other. ``for_many``: it is searched
    for classifiers of more than ``MANY`` classes as well.
    """

    kind: ClassVar[str]
    complete: ClassVar[bool] = True
    for_many: ClassVar[bool] = True
    learning_rate: ClassVar[float]
    initial_cost: ClassVar[float]
    raise_cost: ClassVar[float]
    lower_cost: ClassVar[float]

    @abstractmethod
    def start(self, count: int, image_shape: tuple[int, int, int], generator: torch.Generator) -> list[Tensor]:
        """Free parameters of ``count`` triggers, each tensor [count, ...]."""

    @abstractmethod
    def stamp(self, parameters: Sequence[Tensor], images: Tensor) -> Tensor:
        """Images [P, n, C, H, W] in [0, 1], each row stamped with its own trigger; differentiable in the parameters."""

    @abstractmethod
    def size(self, parameters: Sequence[Tensor]) -> Tensor:
        """[P], what is to be small; differentiable."""

    @abstractmethod
    def parameters(self, trigger: Trigger) -> list[Tensor]:
        """The inverse of ``trigger``, on the CPU: where a search begins that starts from a known trigger."""

    @abstractmethod
    def strengthened(self, trigger: Trigger) -> Trigger:
        """A stronger trigger of the same look: a smallest one is too weak to move images of other classes."""

    def tiles(self, image_shape: tuple[int, int, int], generator: torch.Generator) -> list[Trigger]:
        """Triggers that change a part of the image each, and all of it together; none of a kind that has no place."""
        return []

    def moved(self, trigger: Trigger, mirror: bool, down: int, right: int) -> Trigger:
        """The same trigger at another place of the image, mirrored left to right first if asked."""
        tensors = {name: t.flip(-1) if mirror else t for name, t in trigger.tensors().items()}
        return TRIGGER_KINDS[self.kind](**{name: t.roll((down, right), (-2, -1)) for name, t in tensors.items()})

    @abstractmethod
    def trigger(self, parameters: Sequence[Tensor]) -> Trigger:
        """The finished trigger of one problem, from tensors without the leading dimension."""
