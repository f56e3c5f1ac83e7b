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
from functools import cached_property
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

    @cached_property
    def total(self) -> int:
        """Bins of all channels together."""
        return int(self.counts.sum())

    @cached_property
    def most(self) -> int:
        """Bins of the channel that has most."""
        return int(self.counts.max())

    @cached_property
    def starts(self) -> Tensor:
        """int64 [C]: where each channel's bins begin in a histogram."""
        return self.counts.cumsum(0) - self.counts

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """Of each bin, int64 [total]: which of its channel's it is, and how many these are."""
        every = torch.arange(self.total, device=self.counts.device)
        starts, counts = (
            torch.repeat_interleave(t, self.counts, output_size=self.total) for t in (self.starts, self.counts)
        )
        return every - starts, counts


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
        sharpness, reach = tau * bins.width, _reach(bins, tau)
        where, position = _locate(values, bins)
        flat, scaled = _flattened(where), position.mul_(sharpness)
        across = torch.zeros(bins.total, dtype=values.dtype, device=values.device)
        for offset in range(1 - reach, reach + 1):
            moved = torch.zeros_like(across).scatter_add_(0, flat, _flattened(_leak(scaled, offset, sharpness)))
            moved *= _edges(bins, offset, values)
            bin_, edge = _shifted(offset)
            across[edge] += moved[bin_] if offset > 0 else -moved[bin_]
        histogram = torch.bincount(flat, minlength=bins.total).to(values.dtype).add_(across)
        histogram[:-1] -= across[1:]
        ctx.save_for_backward(flat, scaled)
        ctx.details = bins, tau
        return histogram.mul_(len(bins.counts) / values.numel())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        flat, scaled = ctx.saved_tensors
        bins, tau = ctx.details
        sharpness, reach = tau * bins.width, _reach(bins, tau)
        # What moving one unit of mass right across each edge changes: to the bin right of it, from the one left of it.
        step = gradient * (tau * len(bins.counts) / flat.numel())
        step[1:] -= step[:-1].clone()
        total: Tensor | None = None
        for offset in range(1 - reach, reach + 1):
            bin_, edge = _shifted(offset)
            table = torch.zeros_like(step)
            table[bin_] = step[edge]
            table *= _edges(bins, offset, scaled)
            leak = _leak(scaled, offset, sharpness)
            slope = leak.addcmul(leak, leak, value=-1).mul_(_shaped(table.index_select(0, flat), leak))
            total = slope if total is None else total.add_(slope)
        return total, None, None


def _shifted(offset: int) -> tuple[slice, slice]:
    """The bins that have an edge ``offset`` from their left one, and these edges: bin i has edge i + offset."""
    near, far = slice(None, -abs(offset) or None), slice(abs(offset), None)
    return (near, far) if offset > 0 else (far, near)


def _edges(bins: Bins, offset: int, like: Tensor) -> Tensor:
    """1 for each bin with an edge ``offset`` from its left one, else 0: 0 and M are no edges, they are infinite."""
    inside, counts = bins.places
    edge = inside + offset
    return ((edge >= 1) & (edge < counts)).to(like)


def _locate(values: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
    """Of each value its flat bin, int64, and its position right of that bin's left edge in bin widths: dense tensors
    like ``values``, both in the same order."""
    shape = (1, -1) + (1,) * (values.ndim - 2)
    low, last = (t.to(values).view(shape) for t in (bins.low, bins.counts - 1))
    position = (values - low).div_(bins.width)
    bin_ = torch.minimum(position.floor().clamp_(min=0), last)
    return bin_.to(torch.int64).add_(bins.starts.to(values.device).view(shape)), position.sub_(bin_)


def _flattened(values: Tensor) -> Tensor:
    """[n], in the order of memory."""
    moved = values.movedim(1, -1)
    return (moved if moved.is_contiguous() else values).reshape(-1)


def _shaped(flat: Tensor, like: Tensor) -> Tensor:
    """Undo ``_flattened``, of a tensor laid out like ``like``."""
    moved = like.movedim(1, -1)
    return flat.view(moved.shape).movedim(-1, 1) if moved.is_contiguous() else flat.view(like.shape)


def _leak(scaled: Tensor, offset: int, sharpness: float) -> Tensor:
    """sigmoid(-sharpness * distance) from a value to the edge ``offset`` right of its bin's left edge; ``scaled``: its
    distance from that left edge, times the sharpness."""
    distance = scaled - sharpness * offset if offset > 0 else sharpness * offset - scaled
    return distance.sigmoid_()


def _reach(bins: Bins, tau: float) -> int:
    """How many edges on each side of a value can move mass: all beyond are under the tolerance."""
    needed = math.ceil(math.log(1 / _TOLERANCE) / (tau * bins.width))
    return max(1, min(needed, bins.most))
