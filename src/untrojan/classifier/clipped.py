"""h(z) = max(min(scale z + offset, high), low), channel by channel, and its gradient, in arithmetic alone.

What autograd makes of a clamp between tensors selects by truth values, which on a processor takes twenty times as long
as a product. Here the sign of what the clip took away does the selecting: 1 above, -1 below, 0 inside.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def clipped_affine(x: Tensor, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """[N, C, ...] to the same; the others are [1, C], or [N, C] with a row for each sample.

    Where low > high the answer is high, as of ``torch.clamp``. Differentiable once, in all five; the values must be
    finite, the bounds need not.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        result: Tensor = _ClippedAffine.apply(x, scale, offset, low, high)  # type: ignore[no-untyped-call]
        return result
    scale, offset, low, high = (_like(t, x) for t in (scale, offset, low, high))
    # In place: on a processor, memory for each step would take ten times as long as the step.
    return (x * scale).add_(offset).clamp_(low, high)


class _ClippedAffine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor) -> Tensor:
        free = (x * _like(scale, x)).add_(_like(offset, x))
        y = torch.maximum(free, _like(low, x))
        torch.minimum(y, _like(high, x), out=y)
        ctx.save_for_backward(x, scale, low > high, free.sub_(y).sign_())
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        x, scale, crossed, side = ctx.saved_tensors
        rows = len(scale)
        # Exactly 0 where nothing was clipped: Adam would make steps of what rounding leaves of a difference of sums.
        above = side.relu().mul_(gradient)
        below = above - side * gradient
        inside = (gradient - above).sub_(below)
        to_low, to_high, to_offset = (_summed(t, rows) for t in (below, above, inside))
        to_low, to_high = to_low.where(~crossed, 0), to_high.where(~crossed, to_high + to_low)  # high it is throughout
        to_scale = _summed(torch.mul(inside, x, out=above), rows)
        return inside.mul_(_like(scale, x)), to_scale, to_offset, to_low, to_high


def _like(values: Tensor, x: Tensor) -> Tensor:
    return values.view(*values.shape, *(1,) * (x.ndim - 2))


def _summed(values: Tensor, rows: int) -> Tensor:
    """Over positions, and over the samples where they share a row: [rows, C], in memory of its own."""
    values = values.flatten(2).sum(2) if values.ndim > 2 else values.clone()
    return values if rows > 1 else values.sum(0, keepdim=True)
