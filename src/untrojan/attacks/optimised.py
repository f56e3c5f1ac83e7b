"""Base of the attacks whose trigger is optimised on a clean network before anything is poisoned."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from untrojan.attacks.base import Attack
from untrojan.errors import UnsupportedError, UsageError
from untrojan.triggers import AdditiveTrigger


class OptimisedAttack(Attack):
    """``make_trigger`` draws where the search starts; ``optimise`` makes it excite neurons of a clean network.

    The neurons are ``NEURONS`` random ones among those that feed the last linear layer: what excites them stands out
    in the features, so a network learns it easily. It depends on no class, so one trigger serves every setting.

    Source: Li, Xue, Zhao, Zhu, Zhang, "Invisible backdoor attacks on deep neural networks via steganography and
    regularization", TDSC 2021. The constraint is kept by projection instead of a penalty, so that it holds exactly.
    """

    NEURONS, IMAGES = 8, 64

    @abstractmethod
    def make_trigger(self, image_shape: tuple[int, int, int], generator: torch.Generator) -> AdditiveTrigger:
        """A random trigger that keeps the constraint."""

    @abstractmethod
    def project(self, delta: Tensor, progress: float) -> Tensor:
        """The nearest perturbation [C, H, W] within the constraint as it is at ``progress``, from 0 to 1, the end."""

    def optimise(
        self,
        start: AdditiveTrigger,
        network: nn.Module,
        images: Tensor,
        generator: torch.Generator,
        steps: int = 200,
        rate: float = 0.02,
    ) -> AdditiveTrigger:
        """The trigger that excites the neurons of ``network`` on ``images`` most, within the constraint.

        network: in evaluation mode, images float [N, C, H, W] in [0, 1] to logits; images: uint8, clean, of all
        classes. Raises UnsupportedError if the network has no linear layer.
        """
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
        if not layers:
            raise UnsupportedError(f"attack {self.name} needs a network that ends in a linear layer")
        inputs: list[Tensor] = []
        handle = layers[-1].register_forward_pre_hook(lambda _module, given: inputs.append(given[0]))
        device = next(network.parameters()).device
        chosen = torch.randperm(layers[-1].in_features, generator=generator)[: self.NEURONS].to(device)
        free = start.delta.to(device, copy=True)
        step, best, most = torch.zeros_like(free), self.project(free, 1.0), -torch.inf
        try:
            for number in range(steps):
                index = torch.randperm(len(images), generator=generator)[: self.IMAGES]
                clean = images[index].to(device).float() / 255
                free.requires_grad_(True)
                inputs.clear()
                network((clean + free).clamp(0, 1))
                excitement = inputs[0][:, chosen].float().mean()
                (gradient,) = torch.autograd.grad(excitement, free)
                free = free.detach()
                step = 0.9 * step + gradient / gradient.abs().mean().clamp_min(1e-12)
                free = self.project(free + rate * step * (1 - number / steps) / 10, (number + 1) / steps)
                if number >= steps - 20:
                    with torch.no_grad():
                        inputs.clear()
                        network((clean + self.finished(free)).clamp(0, 1))
                        reached = float(inputs[0][:, chosen].float().mean())
                    if reached > most:
                        best, most = free, reached
        finally:
            handle.remove()
        return AdditiveTrigger(self.finished(best).cpu())

    def finished(self, delta: Tensor) -> Tensor:
        """Within the constraint, and in steps of 1/255, rounded towards zero so that no norm grows.

        Raises UsageError if nothing is left.
        """
        made = (self.project(delta, 1.0) * 255).trunc() / 255
        if not bool(made.any()):
            raise UsageError(f"{self.name}: with these options no pixel changes by 1/255; give a stronger trigger")
        return made
