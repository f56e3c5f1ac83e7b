"""Draws of images that are balanced over classes and depend on nothing but labels and seed."""

from __future__ import annotations

import torch
from torch import Tensor

from untrojan.errors import DataError, UsageError


def balanced_sample(labels: Tensor, limit: int, seed: int) -> Tensor:
    """Indices of ``limit`` images, as evenly over the classes as the classes allow, ascending.

    A class with fewer images than its share gives all that it has, and the others fill up; shares differ by at most
    one among classes that still have images. ``limit`` >= N returns all. With the same seed, a smaller draw is a
    part of a larger one. The global random state is neither read nor changed.

    labels: int64 [N]; returns int64 [min(limit, N)]. Raises UsageError if limit < 1 or the seed is out of range.

    >>> balanced_sample(torch.tensor([0, 0, 0, 0, 1]), 3, seed=0).tolist()[-1]
    4
    """
    if limit < 1:
        raise UsageError(f"--limit is a number of images, at least 1, got {limit}")
    generator = _generator(seed)
    counts = torch.unique(labels, return_counts=True)[1]
    return _draw(labels, counts, limit, generator)


def split_defence(labels: Tensor, fraction: float = 0.1, *, seed: int) -> tuple[Tensor, Tensor]:
    """Split indices into those for the defence, evenly over the classes, and the rest for the test; each ascending.

    round(fraction * N) images, at least one, go to the defence, balanced as in ``balanced_sample``; but no class gives
    more than half of its images, rounded up (or ``fraction`` of them, if that is more), nor all of them.
    Raises UsageError if fraction is not in (0, 1), DataError if no class has two images.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"the fraction for the defence must lie between 0 and 1, got {fraction}")
    generator = _generator(seed)
    counts = torch.unique(labels, return_counts=True)[1]
    capacity = torch.minimum((counts - 1).clamp(min=0), (counts * max(fraction, 0.5)).ceil().long())
    if len(labels) == 0 or int(capacity.sum()) == 0:
        raise DataError(f"cannot split {len(labels)} images into defence and test: no class has two images")
    defence = _draw(labels, capacity, max(1, round(fraction * len(labels))), generator)
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[defence] = False
    return defence, rest.nonzero().flatten()


def _draw(labels: Tensor, capacity: Tensor, limit: int, generator: torch.Generator) -> Tensor:
    """``limit`` indices, from no class more than its ``capacity`` [number of distinct labels]."""
    shuffled = torch.randperm(len(labels), generator=generator)
    classes, counts = torch.unique(labels, return_counts=True)
    quota = _fill(capacity, limit, torch.randperm(len(classes), generator=generator))
    by_class = shuffled[torch.sort(labels[shuffled], stable=True).indices]
    starts = counts.cumsum(0) - counts
    rank = torch.arange(len(labels)) - starts.repeat_interleave(counts)
    return by_class[rank < quota.repeat_interleave(counts)].sort().values


def _fill(capacity: Tensor, limit: int, order: Tensor) -> Tensor:
    """Pour ``limit`` into vessels of the given capacities to one common level; ``order`` says who gets the rest."""
    if int(capacity.sum()) <= limit:
        return capacity
    low, high = 0, int(capacity.max())  # the level lies in [low, high): full at low, too much at high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if int(capacity.clamp(max=middle).sum()) <= limit else (low, middle)
    quota = capacity.clamp(max=low)
    deeper = order[capacity[order] > low]
    quota[deeper[: limit - int(quota.sum())]] += 1
    return quota


def _generator(seed: int) -> torch.Generator:
    if not 0 <= seed < 2**63:
        raise UsageError(f"the seed must be a whole number from 0 to 2^63 - 1, got {seed}")
    return torch.Generator().manual_seed(seed)
