"""The corrected activation (BNA, Eq. 4) and the inference rule (Sec. 4.2), one number and one image at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn


def corrected_activation(
    z: float, mean: float, std: float, gamma: float, beta: float, low: float, high: float
) -> float:
    return max(min(gamma * (z - mean) / std + beta, high), low)


def corrected_norm(x: Tensor, norm: nn.Module, theta: Mapping[str, Tensor]) -> Tensor:
    """What a BatchNorm answers on x [N, C, ...] under the Theta of its layer, each entry [C]."""
    result = torch.empty_like(x)
    for index in np.ndindex(*x.shape):
        c = index[1]
        result[index] = corrected_activation(
            float(x[index]),
            float(theta["mean"][c]),
            math.exp(float(theta["log_std"][c])),
            1.0 if norm.weight is None else float(norm.weight.detach()[c]),
            0.0 if norm.bias is None else float(norm.bias.detach()[c]),
            float(theta["low"][c]),
            float(theta["high"][c]),
        )
    return result


def corrected_output(z: Tensor, theta: Mapping[str, Tensor]) -> Tensor:
    """h without a BatchNorm, on z [N, C, ...] under a layer's Theta, each entry [C]."""
    return corrected_norm(z, nn.BatchNorm1d(z.shape[1], affine=False), theta)


def decide(
    image: Tensor, victim: Callable[[Tensor], Tensor], corrected: Mapping[int, Callable[[Tensor], Tensor]]
) -> tuple[int, bool, int, float]:
    """(label, triggered, the victim's label, score) of one image [C, H, W]; ``corrected`` is g by target."""
    with torch.no_grad():
        suspect = _best(victim(image[None])[0].tolist())
        if suspect not in corrected:
            return suspect, False, suspect, 0.0
        logits = corrected[suspect](image[None])[0].tolist()
    weights = [math.exp(value - max(logits)) for value in logits]
    label = _best(logits)
    return label, label != suspect, suspect, 1 - weights[suspect] / sum(weights)


def _best(logits: list[float]) -> int:
    return max(range(len(logits)), key=lambda k: logits[k])
