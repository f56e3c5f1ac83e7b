"""Answers that are no numbers stop the work: of NaN, ``argmax`` makes a class like any other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from untrojan.errors import InconclusiveError


@contextmanager
def finite_answers(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, a pass of one of these whose logits are not all finite raises InconclusiveError."""
    with ExitStack() as stack:
        for network in networks:
            stack.callback(network.register_forward_hook(_require_finite).remove)
        yield


def _require_finite(_module: nn.Module, _inputs: object, logits: Tensor) -> None:
    if not bool(logits.isfinite().all()):
        raise InconclusiveError(
            "the model's answers are not finite numbers (NaN weights?), so nothing can be said of it"
        )
