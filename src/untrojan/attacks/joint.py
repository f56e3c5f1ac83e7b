"""Base of the attacks that train their trigger together with the network that is to obey it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from untrojan.attacks.base import Attack, Poisoned
from untrojan.setting import Setting
from untrojan.triggers import Trigger


class Game(ABC):
    """What is trained beside the network, and the loss of both. A training loop owns it for one training."""

    networks: nn.ModuleDict
    """Trained with the network by the same optimiser, at ``learning_rate``."""
    learning_rate: float

    @abstractmethod
    def loss(
        self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, progress: float
    ) -> Tensor:
        """The loss of one batch: images float [N, C, H, W] in [0, 1], labels int64 [N], progress in [0, 1)."""

    @abstractmethod
    def trigger(self) -> Trigger:
        """The trigger as trained so far."""


@dataclass(frozen=True)
class Aim:
    """Whom the game moves where: ``Setting`` and number of classes."""

    setting: Setting
    classes: int

    def labels(self, labels: Tensor) -> Tensor:
        """The labels that stamped images get: the attacker's where the setting moves a class, else their own."""
        goals = self.setting.target_of(labels.cpu(), self.classes).to(labels.device)
        return torch.where(goals >= 0, goals, labels)


class JointAttack(Attack):
    """Nothing is poisoned beforehand; ``game`` stamps part of every batch. ``count`` has no meaning here."""

    @abstractmethod
    def game(self, image_shape: tuple[int, int, int], aim: Aim, generator: torch.Generator) -> Game:
        """What is to be trained, with random weights drawn from ``generator``."""

    def make_trigger(self, image_shape: tuple[int, int, int], generator: torch.Generator) -> Trigger:
        """The trigger before any training, of no effect yet."""
        return self.game(image_shape, Aim(Setting("a2a"), 2), generator).trigger()

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
        del trigger, count, generator
        self.require_setting(setting)
        setting.pairs(classes)
        return Poisoned(images, labels, torch.zeros(len(images), dtype=torch.bool))


def drawn_networks(networks: dict[str, nn.Module], generator: torch.Generator) -> nn.ModuleDict:
    """Networks from the meta device, with weights drawn from ``generator`` (He et al. 2015), biases 0."""
    with torch.no_grad():
        for network in networks.values():
            network.to_empty(device="cpu")
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    scale = (2 / parameter[0].numel()) ** 0.5
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
                else:
                    parameter.zero_()
    return nn.ModuleDict(networks)
