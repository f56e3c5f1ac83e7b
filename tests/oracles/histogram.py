"""The soft histogram as BNA, Eq. 6 writes it: every value against every edge, in time O(values x bins)."""

from __future__ import annotations

import torch
from torch import Tensor


def dense_histogram(values: Tensor, low: Tensor, counts: Tensor, width: float, tau: float) -> Tensor:
    """[N, C, ...] to the shares of all channels, end to end; the first and last bin of a channel are half-infinite."""
    shares = []
    for c, bins in enumerate(counts.tolist()):
        sample = values[:, c].flatten()
        left = torch.ones_like(sample)
        for i in range(1, bins):
            right = torch.sigmoid(tau * (sample - (low[c] + i * width)))
            shares.append((left - right).mean())
            left = right
        shares.append(left.mean())
    return torch.stack(shares)
