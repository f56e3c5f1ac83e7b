"""Wasserstein: a faint noise for each image, trained so that features of stamped images look like those of clean ones.

The adaptive attack of the BNA paper (Sec. 5.4): it makes the very alteration small that the defence reverses.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from untrojan.attacks.joint import Aim, Game, JointAttack, drawn_networks
from untrojan.errors import UnsupportedError, UsageError
from untrojan.triggers import Trigger, WassersteinTrigger


class Wasserstein(JointAttack):
    """``strength`` bounds the noise (L-infinity, in [0, 1] units); ``latent`` weighs the distance of the features;
    ``share`` of each batch is stamped as well; the noise is fixed after ``fixed`` of the training.

    Source: Doan, Lao, Li, "Backdoor attack with imperceptible input and latent modification", NeurIPS 2021: strength
    .01, a generator trained in turn with the network and then fixed. Their distance is used, the sliced Wasserstein one
    along the rows of the last linear layer; both losses are one here.
    """

    name = "wasserstein"
    default_count: ClassVar = {"a2o": 0, "a2a": 0, "s2t": 0}

    def __init__(
        self,
        *,
        strength: float = 0.01,
        latent: float = 0.1,
        share: float = 0.5,
        fixed: float = 0.5,
        rate: float = 0.003,
    ):
        if not 0 < strength <= 1 or latent < 0 or not 0 < share <= 1 or not 0 < fixed <= 1 or not rate > 0:
            raise UsageError(
                "wasserstein: strength, share and fixed in (0, 1], latent at least 0, rate above 0; "
                f"got {strength}, {share}, {fixed}, {latent} and {rate}"
            )
        self.strength, self.latent, self.share, self.fixed, self.rate = strength, latent, share, fixed, rate

    def game(self, image_shape: tuple[int, int, int], aim: Aim, generator: torch.Generator) -> Game:
        return _WassersteinGame(self, image_shape, aim, generator)


class _WassersteinGame(Game):
    def __init__(self, attack: Wasserstein, image_shape: tuple[int, int, int], aim: Aim, generator: torch.Generator):
        self.attack, self.image_shape, self.aim = attack, image_shape, aim
        self.networks = drawn_networks(WassersteinTrigger.networks(image_shape[0]), generator)
        self.learning_rate = attack.rate

    def loss(
        self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, progress: float
    ) -> Tensor:
        del generator  # batches are shuffled already
        last = next((m for m in reversed(list(network.modules())) if isinstance(m, nn.Linear)), None)
        if last is None:
            raise UnsupportedError("attack wasserstein needs a network that ends in a linear layer")
        count = max(2, round(self.attack.share * len(images)))
        scalars = {"strength": torch.tensor(self.attack.strength, device=images.device)}
        with torch.set_grad_enabled(progress < self.attack.fixed):
            stamped = WassersteinTrigger.paint(images[:count], dict(self.networks.items()), scalars).clamp(0, 1)
        features: list[Tensor] = []
        handle = last.register_forward_pre_hook(lambda _module, given: features.append(given[0]))
        try:
            answers = network(torch.cat([images, stamped])).float()
        finally:
            handle.remove()
        clean = functional.cross_entropy(answers[: len(images)], labels)
        moved = functional.cross_entropy(answers[len(images) :], self.aim.labels(labels[:count]))
        directions = functional.normalize(last.weight.detach().float(), dim=1)
        seen = features[0].float() @ directions.T
        distance = sliced_wasserstein(seen[:count], seen[len(images) :])
        return clean + moved + self.attack.latent * distance

    def trigger(self) -> Trigger:
        return WassersteinTrigger.of(self.image_shape, dict(self.networks.items()), strength=self.attack.strength)


def sliced_wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of the sorted columns of [N, D] and [N, D]: W2 squared of each projection, averaged."""
    return (a.sort(0).values - b.sort(0).values).square().mean()
