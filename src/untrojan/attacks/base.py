"""What an attack is: a trigger made from a seed, and a training set poisoned with it."""

from __future__ import annotations

import math
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
    """A poisoned training set: images uint8 [N, C, H, W], labels int64 [N], which the attack added, bool [N]."""

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
    settings: ClassVar[tuple[str, ...]] = ("a2o", "a2a", "s2t")
    """The kinds of setting for which the attack makes sense."""
    cover_share: ClassVar[float] = 0.5
    """For s2t: stamped images that keep their label, of every other class, as a share of ``count``."""

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
        count: int | float,
        generator: torch.Generator,
    ) -> Poisoned:
        """Stamp ``count`` random images of each source class and give them the attacker's label; add them to the set.

        A ``count`` that is a float is a share of the class, in (0, 1].

        The clean originals stay, as in the paper ("embed the trigger in n images per class" and inject them). In the
        source-specific setting, stamped images of all other classes that keep their label teach the network that the
        trigger moves the source class alone (Tang et al., USENIX Security 2021).
        images: uint8 [N, C, H, W]; labels: int64 [N]. Raises DataError if a source class has no image.
        """
        self.require_setting(setting)
        if isinstance(count, float) and not 0 < count <= 1:
            raise UsageError(f"count as a share of each source class lies in (0, 1], got {count}")
        if count <= 0:
            raise UsageError(f"count is the number of poisoned images per source class, at least 1, got {count}")
        chosen, targets = [], []
        for source, target in self.relabelled(setting, classes):
            members = (labels == source).nonzero().flatten()
            if len(members) == 0:
                raise DataError(f"no training image of class {source}, which setting '{setting}' needs as a source")
            picked = members[torch.randperm(len(members), generator=generator)[: _number(count, members)]]
            chosen.append(picked)
            targets.append(torch.full_like(picked, target))
        if setting.kind == "s2t":
            for other in set(range(classes)) - {setting.source}:
                members = (labels == other).nonzero().flatten()
                some = math.ceil(self.cover_share * _number(count, members))
                chosen.append(members[torch.randperm(len(members), generator=generator)[:some]])
                targets.append(torch.full_like(chosen[-1], other))
        index = torch.cat(chosen)
        stamped = (trigger.stamp(images[index].float() / 255) * 255).round().to(torch.uint8)
        covers, kept = self.covers(images, labels, trigger=trigger, poisoned=index, generator=generator)
        added = len(stamped) + len(covers)
        return Poisoned(
            images=torch.cat([images, stamped, covers]),
            labels=torch.cat([labels, torch.cat(targets), kept]),
            poisoned=torch.arange(len(images) + added) >= len(images),
        )

    def require_setting(self, setting: Setting) -> None:
        """Raise UsageError if the attack makes no sense in this setting."""
        if setting.kind not in self.settings:
            raise UsageError(f"attack {self.name} has no setting {setting.kind}; it has {', '.join(self.settings)}")

    def relabelled(self, setting: Setting, classes: int) -> tuple[tuple[int, int], ...]:
        """(true class, label) of the images to stamp; the attacker's pairs, unless an attack poisons otherwise."""
        return setting.pairs(classes)

    def covers(
        self, images: Tensor, labels: Tensor, *, trigger: Trigger, poisoned: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """More images for the training set, with their true labels: none, unless an attack needs some.

        poisoned: int64 indices of the stamped ones, from the same ``images``.
        """
        del trigger, poisoned, generator
        return images[:0], labels[:0]


def _number(count: int | float, members: Tensor) -> int:
    return count if isinstance(count, int) else math.ceil(count * len(members))
