"""Input-aware: a patch that a network paints for each image, of no effect on any other."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from untrojan.attacks.joint import Aim, Game, JointAttack, drawn_networks
from untrojan.errors import UsageError
from untrojan.triggers import InputAwareTrigger, Trigger


class InputAware(JointAttack):
    """``attacked`` of each batch get their own trigger and the attacker's label, ``crossed`` that of another image
    and keep their label. ``density`` is the share of the image that a mask may cover, ``diversity`` weighs the demand
    that two images get two triggers, ``mask_weight`` the density.

    Source: Nguyen, Tran, "Input-aware dynamic backdoor attack", NeurIPS 2020: density .032, lambda_div 1, lambda_norm
    100, a tenth each. There the mask is trained first and then fixed; here all is trained at once, which is shorter.
    """

    name = "input-aware"
    default_count: ClassVar = {"a2o": 0, "a2a": 0, "s2t": 0}

    def __init__(
        self,
        *,
        density: float = 0.032,
        diversity: float = 1.0,
        mask_weight: float = 100.0,
        attacked: float = 0.1,
        crossed: float = 0.1,
        rate: float = 0.003,
    ):
        if not 0 < density <= 1 or diversity < 0 or mask_weight < 0 or not rate > 0:
            raise UsageError("input-aware: density in (0, 1], diversity and mask_weight at least 0, rate above 0")
        if attacked <= 0 or crossed < 0 or attacked + crossed > 1:
            raise UsageError("input-aware: attacked and crossed are shares of a batch, together at most 1")
        self.density, self.diversity, self.mask_weight = density, diversity, mask_weight
        self.attacked, self.crossed, self.rate = attacked, crossed, rate

    def game(self, image_shape: tuple[int, int, int], aim: Aim, generator: torch.Generator) -> Game:
        return _InputAwareGame(self, image_shape, aim, generator)


class _InputAwareGame(Game):
    def __init__(self, attack: InputAware, image_shape: tuple[int, int, int], aim: Aim, generator: torch.Generator):
        self.attack, self.image_shape, self.aim = attack, image_shape, aim
        self.networks = drawn_networks(InputAwareTrigger.networks(image_shape[0]), generator)
        self.learning_rate = attack.rate
        with torch.no_grad():
            # Masks start nearly empty, or the first epochs see nothing but patches.
            self.networks["mask"].get_parameter("last.bias").fill_(-0.3)

    def loss(
        self, network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, progress: float
    ) -> Tensor:
        del generator, progress  # batches are shuffled already
        networks = dict(self.networks.items())
        own = max(1, round(self.attack.attacked * len(images)))
        foreign = min(round(self.attack.crossed * len(images)), len(images) - own)
        source, other = images[: own + foreign], images[: own + foreign].roll(own, 0)
        painter = torch.cat([source[:own], other[own:]])
        pattern = torch.sigmoid(networks["pattern"](painter))
        mask = InputAwareTrigger.mask(painter, networks)
        stamped = source + mask * (pattern - source)
        answers = network(torch.cat([stamped, images[own + foreign :]]))
        truth = torch.cat([self.aim.labels(labels[:own]), labels[own:]])
        loss = functional.cross_entropy(answers.float(), truth)
        density = functional.relu(mask.mean((1, 2, 3)) - self.attack.density).mean()
        apart = _distance(painter, painter.roll(1, 0))
        patterns = _distance(mask * pattern, (mask * pattern).roll(1, 0))
        diversity = (apart / (patterns + 1e-3)).clamp_max(10).mean()
        return loss + self.attack.mask_weight * density + self.attack.diversity * 0.01 * diversity

    def trigger(self) -> Trigger:
        return InputAwareTrigger.of(self.image_shape, dict(self.networks.items()))


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean((1, 2, 3)).clamp_min(1e-12).sqrt()
