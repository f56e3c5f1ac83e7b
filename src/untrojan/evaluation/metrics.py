"""The paper's rates, from predictions and labels alone: pure functions on int64 and bool tensors [N].

ACC, accuracy on clean images. ASR, share of triggered images classified to the attacker's target. SIA, share of them
classified to their true class. TPR, share of triggered images that are flagged. FPR, share of clean images that are
flagged. The caller chooses the images; every function returns (hits, count), so that intervals can be made.
"""

from __future__ import annotations

from torch import Tensor


def share(condition: Tensor, among: Tensor | None = None) -> tuple[int, int]:
    """How many fulfil a condition, and of how many; bool [N] each.

    >>> import torch
    >>> share(torch.tensor([True, False, True]), among=torch.tensor([True, True, False]))
    (1, 2)
    """
    if among is not None:
        condition = condition[among]
    return int(condition.sum()), condition.numel()


def agreement(predictions: Tensor, wanted: Tensor) -> tuple[int, int]:
    """How many predictions are the wanted class: ACC and SIA with the true labels, ASR with the attacker's."""
    return share(predictions == wanted)
