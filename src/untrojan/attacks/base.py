"""What an attack is: a trigger made from a seed, and a training set poisoned with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from untrojan.errors import DataError, UsageError
from untrojan.setting import Setting
from untrojan.triggers import Trigger


@dataclass(frozen=True)
class Poisoned:
    """A poisoned training set: images uint8 [N, C, H, W], labels int64 [N], which of them are poisoned, bool [N]."""

    images: Tensor
    labels: Tensor
    poisoned: Tensor


class Attack(ABC):
    """Base of every attack: a subclass writes ``make_trigger``, this class poisons.

    Constructors take keyword-only hyper-parameters and nothing else; images and classes arrive at call time.
    """

    name: ClassVar[str]
    default_count: ClassVar[dict[str, int]] = {"a2o": 100, "a2a": 300, "s2t": 100}
    """Poisoned images per source class by kind of setting (the paper's CIFAR-10 counts)."""

    @abstractmethod
    def make_trigger(self, image_shape: tuple[int, int, int], generator: torch.Generator) -> Trigger:
        """A trigger for images of shape (C, H, W), random choices drawn from ``generator``."""

    def poison(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        trigger: Trigger,
        setting: Setting,
        classes: int,
        count: int,
        generator: torch.Generator,
    ) -> Poisoned:
        """Stamp ``count`` random images of each source class and give them the attacker's label; add them to the set.

        The clean originals stay, as in the paper ("embed the trigger in n images per class" and inject them).
        images: uint8 [N, C, H, W]; labels: int64 [N]. Raises DataError if a source class has no image.
        """
        if count < 1:
            raise UsageError(f"count is the number of poisoned images per source class, at least 1, got {count}")
        chosen, targets = [], []
        for source, target in setting.pairs(classes):
            members = (labels == source).nonzero().flatten()
            if len(members) == 0:
                raise DataError(f"no training image of class {source}, which setting '{setting}' needs as a source")
            picked = members[torch.randperm(len(members), generator=generator)[:count]]
            chosen.append(picked)
            targets.append(torch.full_like(picked, target))
        index = torch.cat(chosen)
        stamped = (trigger.stamp(images[index].float() / 255) * 255).round().to(torch.uint8)
        return Poisoned(
            images=torch.cat([images, stamped]),
            labels=torch.cat([labels, torch.cat(targets)]),
            poisoned=torch.cat([torch.zeros(len(images), dtype=torch.bool), torch.ones(len(index), dtype=torch.bool)]),
        )
