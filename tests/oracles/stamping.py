"""Stamping one pixel after the other, in float32 as the images are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def eight_bits(value: np.float32) -> float:
    """The nearest value that a byte can hold; halfway goes to the even one."""
    inside = min(max(value, np.float32(0)), np.float32(1))
    return float(np.float32(round(float(inside * np.float32(255)))) / np.float32(255))


def patched(images: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    result = torch.empty_like(images)
    for n, c, i, j in np.ndindex(*images.shape):
        x, m = np.float32(images[n, c, i, j]), np.float32(mask[0, i, j])
        p = np.float32(pattern[min(c, len(pattern) - 1), i, j])
        result[n, c, i, j] = eight_bits(x + m * (p - x))
    return result


def added(images: Tensor, delta: Tensor) -> Tensor:
    result = torch.empty_like(images)
    for n, c, i, j in np.ndindex(*images.shape):
        result[n, c, i, j] = eight_bits(
            np.float32(images[n, c, i, j]) + np.float32(delta[min(c, len(delta) - 1), i, j])
        )
    return result
