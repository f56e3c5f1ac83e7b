"""Divergences between histograms, per channel, summed. p, q: float [total bins], shares of concatenated channels.

TV, JS and KL are the paper's, f-divergences sum of q k(p / q) (BNA, Sec. 4.2), with empty bins made harmless: a
truncated soft histogram can be exactly 0. They do not see how far apart two bins are; the Wasserstein distance does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_FLOOR = 1e-6


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """Half the L1 distance, in [0, 1] per channel: k(r) = |r - 1| / 2."""
    return (p - q).abs().sum() / 2


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """The paper's k(r) = r log(2r / (r + 1)) + log(2 / (r + 1)): twice the usual one, in [0, 2 ln 2] per channel."""
    p, q = p.clamp_min(_FLOOR), q.clamp_min(_FLOOR)
    middle = torch.log((p + q) / 2)
    return (p * (p.log() - middle) + q * (q.log() - middle)).sum()


def kullback_leibler(p: Tensor, q: Tensor) -> Tensor:
    """k(r) = r log r, with both shares floored at 1e-6."""
    p, q = p.clamp_min(_FLOOR), q.clamp_min(_FLOOR)
    return (p * (p.log() - q.log())).sum()


def wasserstein(p: Tensor, q: Tensor) -> Tensor:
    """The 1-Wasserstein distance, in bins per channel, the half-infinite ones as wide as the others.

    The sum of the distances between cumulative shares. Those of one channel end at 1 in both, so that the sum over the
    concatenated channels needs to know no boundary, and the very last is 0.
    """
    return (p - q).cumsum(0)[:-1].abs().sum()


DIVERGENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tv": total_variation,
    "js": jensen_shannon,
    "kl": kullback_leibler,
    "w1": wasserstein,
}
