"""Additive perturbations, inverted as in Xiang et al. 2020."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from untrojan.detection.family import TriggerFamily
from untrojan.triggers import AdditiveTrigger, Trigger


class AdditiveFamily(TriggerFamily):
    """x becomes clip(x + v), with the L2 norm of v small.

    Source: Xiang, Miller, Kesidis, "Detection of backdoors in trained classifiers without access to the training
    set", TNNLS 2020 (objective; the optimiser is ours).
    """

    kind = "additive"
    learning_rate = 0.005
    initial_cost = 0.1
    raise_cost, lower_cost = 1.3, 1 / 1.5
    start_scale = 0.002

    def start(self, count: int, image_shape: tuple[int, int, int], generator: torch.Generator) -> list[Tensor]:
        return [torch.randn(count, *image_shape, generator=generator) * self.start_scale]

    def stamp(self, parameters: Sequence[Tensor], images: Tensor) -> Tensor:
        return (images + parameters[0].unsqueeze(1)).clamp(0, 1)

    def size(self, parameters: Sequence[Tensor]) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(parameters[0].flatten(1), dim=1)
        return norms

    def parameters(self, trigger: Trigger) -> list[Tensor]:
        return [trigger.tensors()["delta"].cpu()]

    def strengthened(self, trigger: Trigger) -> AdditiveTrigger:
        return AdditiveTrigger((2 * trigger.tensors()["delta"]).clamp(-1, 1))

    def trigger(self, parameters: Sequence[Tensor]) -> AdditiveTrigger:
        return AdditiveTrigger(parameters[0].clamp(-1, 1))
