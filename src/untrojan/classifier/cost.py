"""What a computation costs, counted at the network and not reported by the method that uses it."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from untrojan.records import Cost


class CostMeter:
    """Counts the images that pass a module, and the seconds, while it is entered.

    A pass whose output requires a gradient counts as forward and backward, any other as forward. Entering again goes
    on counting; entering while entered counts nothing twice; several meters on one module are independent.

    >>> layer = nn.Linear(2, 2).requires_grad_(False)
    >>> with CostMeter(layer) as meter:
    ...     _ = layer(torch.zeros(5, 2)), layer(torch.zeros(3, 2, requires_grad=True))
    >>> meter.images_forward, meter.images_forward_backward
    (5, 3)
    """

    def __init__(self, module: nn.Module):
        self.module = module
        self.images_forward = 0
        self.images_forward_backward = 0
        self._seconds = 0.0
        self._depth = 0
        self._started = 0.0
        self._handle: RemovableHandle | None = None

    def __enter__(self) -> CostMeter:
        if self._depth == 0:
            self._handle = self.module.register_forward_hook(self._count)
            self._started = time.perf_counter()
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth:
            return
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        if kind is None and any(p.is_cuda for p in self.module.parameters()):
            torch.cuda.synchronize()  # kernels still in the queue belong to this time
        self._seconds += time.perf_counter() - self._started

    @property
    def seconds(self) -> float:
        """Seconds inside so far, the present stay included."""
        return self._seconds + (time.perf_counter() - self._started if self._depth else 0.0)

    def cost(self) -> Cost:
        """The totals so far."""
        return Cost(
            seconds=self.seconds,
            images_forward=self.images_forward,
            images_forward_backward=self.images_forward_backward,
        )

    def _count(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        batch = next((x for x in (*inputs, output) if isinstance(x, Tensor) and x.ndim), None)
        images = 0 if batch is None else batch.shape[0]
        if isinstance(output, Tensor) and output.requires_grad:
            self.images_forward_backward += images
        else:
            self.images_forward += images
