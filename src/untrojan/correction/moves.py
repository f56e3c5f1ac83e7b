"""Where the numbers of h begin, and how far a step moves them: by what the clean activations of each neuron are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.corrected import PARAMETERS, CorrectedActivation, CorrectedBatchNorm, CorrectedClassifier
from untrojan.classifier.sites import captured


@dataclass(frozen=True)
class Clean:
    """Of every neuron of a layer its least and its largest activation on clean images, and their spread: [C] each."""

    low: Tensor
    high: Tensor
    std: Tensor


@torch.no_grad()
def clean_activations(
    classifier: Classifier, layers: Mapping[str, nn.Module], images: Tensor, batch_size: int = 256
) -> dict[str, Clean]:
    """What these layers put out on clean images, by name."""
    seen: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in layers}
    batches = images.split(batch_size)
    with captured(layers) as outputs:
        for batch in batches:
            classifier(classifier.arranged(batch))
            for name, output in outputs.items():
                values = output.float().movedim(1, 0).flatten(1)
                seen[name].append((values.amin(1), values.amax(1), *torch.var_mean(values, 1, correction=0)))
    shares = torch.tensor([[len(batch) / len(images)] for batch in batches], device=images.device)
    found = {}
    for name, parts in seen.items():
        low, high, within, means = (torch.stack(part) for part in zip(*parts, strict=True))
        between = (means - (shares * means).sum(0)).square()
        found[name] = Clean(low.amin(0), high.amax(0), (shares * (within + between)).sum(0).sqrt())
    return found


class Moves:
    """The numbers of h, as steps from where they begin in units of each neuron's own spread.

    Adam's steps are as long for one neuron as for the other, and what is a small one for an activation of spread 1 is
    twice the spread of another: in a MobileNet those of the depthwise convolutions are .05 to .2.
    """

    def __init__(self, corrected: CorrectedClassifier, clean: Mapping[str, Clean] | None):
        layers = corrected.layers.items()
        self.numbers = [getattr(layer, p).requires_grad_(True) for _, layer in layers for p in PARAMETERS]
        self.starts = [number.detach().clone() for number in self.numbers]
        self.steps = [torch.zeros_like(start) for start in self.starts]
        if clean is None:
            self.units = [torch.ones_like(start) for start in self.starts]
        else:
            self.units = [unit for name, layer in layers for unit in units_of(layer, clean[name].std)]

    def gradients_of(self, loss: Tensor) -> None:
        """For the optimiser of ``steps``."""
        gradients = torch.autograd.grad(loss, self.numbers)
        for step, gradient, unit in zip(self.steps, gradients, self.units, strict=True):
            step.grad = gradient * unit

    @torch.no_grad()
    def take(self) -> None:
        """Move the numbers to where ``steps`` say."""
        for number, start, step, unit in zip(self.numbers, self.starts, self.steps, self.units, strict=True):
            number.copy_(start + step * unit)


def units_of(layer: CorrectedActivation, std: Tensor) -> tuple[Tensor, ...]:
    """How far a step of 1 moves each of ``PARAMETERS``: [R, C] each. std: [C], of the layer's clean activations.

    The mean is in front of the layer's gamma, where a BatchNorm has its own standard deviation; the clip is behind it.
    """
    behind = std.expand_as(layer.low)
    front = torch.exp(layer.log_std.detach()) if isinstance(layer, CorrectedBatchNorm) else behind
    return front, torch.ones_like(front), behind, behind


@torch.no_grad()
def start_clip(corrected: CorrectedClassifier, clean: Mapping[str, Clean]) -> None:
    """Start the clip at the clean extremes: an infinite one gets no gradient."""
    for name, layer in corrected.layers.items():
        layer.low.copy_(clean[name].low.expand_as(layer.low))
        layer.high.copy_(clean[name].high.expand_as(layer.high))
