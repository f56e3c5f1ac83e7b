"""Soft histograms, differentiable in the values, in time and memory proportional to the number of values.

A value's membership of a bin is sigmoid(tau (z - left edge)) - sigmoid(tau (z - right edge)) (BNA, Eq. 6). A sigmoid
more than ln(1/eps) / tau away from its edge is 0 or 1 to within eps, so only the few edges around a value matter: with
the paper's tau = 150 and bins of 0.1, two of them. ``soft_histogram`` finds a value's bin by division, evaluates those
edges alone, and sums per bin; its backward pass gathers from the same edges. The dense formula is the oracle of its
tests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from untrojan.errors import ShapeError, UsageError

_TOLERANCE = 4e-7
"""A sigmoid smaller than this is taken for 0. A bin gathers at most two such errors, so it is right to 1e-6."""


@dataclass(frozen=True)
class Bins:
    """Bins of equal width for C channels, each channel with its own number of them, stored end to end.

    low: float [C], left end of each channel's first bin; counts: int64 [C], M of each channel; width: the paper's
    delta b, in activation units. The first and the last bin of a channel are half-infinite.
    """

    low: Tensor
    counts: Tensor
    width: float

    @classmethod
    def between(cls, low: Tensor, high: Tensor, width: float, most: int = 4096) -> Bins:
        """M = ceil((high - low) / width) bins per channel, at least one, and at most ``most``.

        low, high: float [C], the smallest and largest clean activation. ``most`` bounds the memory that a channel with
        exploding activations could ask for; its last bin takes the rest.
        """
        if not width > 0 or not math.isfinite(width):
            raise UsageError(f"the bin width must be positive, got {width}")
        counts = torch.ceil((high - low).double() / width - 1e-9).clamp(1, most).to(torch.int64)
        return cls(low.detach(), counts, width)

    @property
    def total(self) -> int:
        """Bins of all channels together."""
        return int(self.counts.sum())

    @property
    def starts(self) -> Tensor:
        """int64 [C]: where each channel's bins begin in a histogram."""
        return self.counts.cumsum(0) - self.counts


def soft_histogram(values: Tensor, bins: Bins, tau: float) -> Tensor:
    """Soft share of each bin: [N, C, ...] to [total bins], the shares of a channel adding up to 1.

    values: float32 or float64, finite; images and positions together are a channel's sample. Differentiable once in
    ``values``. Raises ShapeError if the channels do not match the bins.
    """
    if values.ndim < 2 or values.shape[1] != len(bins.counts) or values.numel() == 0:
        raise ShapeError(f"expected values [N, {len(bins.counts)}, ...], got {list(values.shape)}")
    if not tau > 0:
        raise UsageError(f"tau must be positive, got {tau}")
    result: Tensor = _SoftHistogram.apply(values, bins, float(tau))  # type: ignore[no-untyped-call]
    return result


class _SoftHistogram(torch.autograd.Function):
    """The sum over values, and its exact gradient.

    Let r be a value's position in its channel in bin widths, k = floor(r) its bin, and edge j the one between bins
    j - 1 and j, with s_j = sigmoid(tau width (r - j)). A hard histogram has s_j = [j <= k]; the soft one moves the mass
    1 - s_j left across an edge j <= k, and s_j right across an edge j > k. Both are the same "leak",
    sigmoid(-tau width |r - j|), which is summed per bin k and offset j - k, then shifted to its edge.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, bins: Bins, tau: float) -> Tensor:
        flat, fraction = _locate(values, bins)
        sharpness, reach = tau * bins.width, _reach(bins, tau)
        layout = _Layout(bins, values.device)
        across = torch.zeros(layout.total, dtype=values.dtype, device=values.device)
        for offset in range(1 - reach, reach + 1):
            moved = _sum_per_bin(flat, _leak(fraction, offset, sharpness), layout.total)
            moved = moved.masked_fill_(layout.no_edge(offset), 0)
            across += torch.roll(moved if offset > 0 else -moved, offset)
        histogram = torch.bincount(flat, minlength=layout.total).to(values.dtype) + across - torch.roll(across, -1)
        sample = values.numel() // len(bins.counts)
        ctx.save_for_backward(flat, fraction)
        ctx.details = bins, tau, values.detach()
        return histogram / sample

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        flat, fraction = ctx.saved_tensors
        bins, tau, values = ctx.details
        sharpness, reach = tau * bins.width, _reach(bins, tau)
        layout = _Layout(bins, values.device)
        # What moving one unit of mass right across each edge changes: to the bin right of it, from the one left of it.
        step = (gradient - torch.roll(gradient, 1)) * (tau * len(bins.counts) / flat.numel())
        total = torch.zeros_like(fraction)
        for offset in range(1 - reach, reach + 1):
            table = torch.roll(step, -offset).masked_fill_(layout.no_edge(offset), 0)
            leak = _leak(fraction, offset, sharpness)
            total += table[flat] * leak.mul_(1 - leak)
        return _like_values(total, values), None, None


class _Layout:
    """Which bin of its channel each flat bin is."""

    def __init__(self, bins: Bins, device: torch.device):
        counts = bins.counts.to(device)
        self.total = bins.total
        channel = torch.repeat_interleave(torch.arange(len(counts), device=device), counts, output_size=self.total)
        self.inside = torch.arange(self.total, device=device) - bins.starts.to(device)[channel]
        self.count = counts[channel]

    def no_edge(self, offset: int) -> Tensor:
        """bool [total]: no edge lies ``offset`` from this bin's left one; 0 and M are not edges, they are infinite."""
        edge = self.inside + offset
        return (edge < 1) | (edge >= self.count)


def _locate(values: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
    """Flat bin, int64 [values], and position right of that bin's left edge in bin widths, in order of memory."""
    rows, channel_last = _in_memory_order(values)
    shape = (1, -1) if channel_last else (1, -1, 1)
    low, counts, starts = (t.to(values.device).view(shape) for t in (bins.low, bins.counts, bins.starts))
    position = (rows - low.to(values.dtype)).div_(bins.width)
    bin_ = position.floor().clamp_(min=torch.zeros_like(counts), max=counts - 1)
    flat = bin_.to(torch.int64).add_(starts)
    return flat.view(-1), position.sub_(bin_).view(-1)


def _in_memory_order(values: Tensor) -> tuple[Tensor, bool]:
    """A contiguous [images * positions, C] view of channels-last values, otherwise [N, C, positions]."""
    moved = values.movedim(1, -1)
    if moved.is_contiguous():
        return moved.reshape(-1, values.shape[1]), True
    return values.contiguous().view(values.shape[0], values.shape[1], -1), False


def _like_values(flat: Tensor, values: Tensor) -> Tensor:
    """Undo the flattening of ``_in_memory_order``."""
    if values.movedim(1, -1).is_contiguous():
        return flat.view(values.movedim(1, -1).shape).movedim(-1, 1)
    return flat.view(values.shape)


def _leak(fraction: Tensor, offset: int, sharpness: float) -> Tensor:
    """sigmoid(-sharpness * distance) from a value to the edge ``offset`` right of its bin's left edge."""
    distance = (fraction - offset) if offset > 0 else (offset - fraction)
    return distance.mul_(sharpness).sigmoid_()


def _sum_per_bin(flat: Tensor, weights: Tensor, total: int) -> Tensor:
    return torch.zeros(total, dtype=weights.dtype, device=weights.device).scatter_add_(0, flat, weights)


def _reach(bins: Bins, tau: float) -> int:
    """How many edges on each side of a value can move mass: all beyond are under the tolerance."""
    needed = math.ceil(math.log(1 / _TOLERANCE) / (tau * bins.width))
    return max(1, min(needed, int(bins.counts.max())))
