"""Which parts of a network must not run in bfloat16."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(x: Tensor) -> torch.autocast:
    """A context in which autocast is off, for the layer that reads pixels.

    bfloat16 keeps 8 bits: near 1 its step is 1/256, and a trigger of 2/255 would be rounded away before the first
    convolution sees it.
    """
    return torch.autocast(x.device.type, enabled=False)
