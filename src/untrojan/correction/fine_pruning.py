"""Fine-pruning (Liu et al., RAID 2018): channels that clean images do not use are removed, then the rest is tuned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.sites import captured
from untrojan.correction.tuning import Lesson, Schedule, Tuning, train_student
from untrojan.errors import UnsupportedError, UsageError
from untrojan.progress import Progress


class FinePruning(Tuning):
    """Prunes the last convolution in the order of its channels' mean clean activation, then fine-tunes.

    Pruning goes on while the accuracy on held-back images falls by at most ``tolerance``, the paper's rule, which
    BackdoorBench replaces by the accuracy on the test images. A pruned channel's weights stay zero in the tuning.
    """

    name = "fp"

    def __init__(
        self,
        *,
        tolerance: float = 0.04,
        epochs: int = 50,
        batch_size: int = 64,
        learning_rate: float = 0.03,
        shift: int = 4,
    ):
        if not 0 <= tolerance < 1:
            raise UsageError(f"fp: tolerance is a loss of accuracy from 0 to less than 1, got {tolerance}")
        self.tolerance = tolerance
        self.schedule = Schedule(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, shift=shift)

    def tune(
        self, student: Classifier, victim: Classifier, lesson: Lesson, *, generator: torch.Generator, progress: Progress
    ) -> dict[str, Tensor] | None:
        last, activity = last_convolution(student, lesson.images)
        order = activity.argsort()
        least = lesson.held_accuracy(student) - self.tolerance
        kept, bias = last.weight.detach().clone(), None if last.bias is None else last.bias.detach().clone()
        pruned = 0
        progress.start("pruning", len(order) - 1)
        for count in range(1, len(order)):  # one channel stays
            _silence(last, order[:count])
            progress.advance()
            if lesson.held_accuracy(student) < least:
                break
            pruned = count
        with torch.no_grad():
            last.weight.copy_(kept)
            if last.bias is not None and bias is not None:
                last.bias.copy_(bias)
        _silence(last, order[:pruned])
        handles = [
            p.register_hook(lambda gradient: gradient.index_fill(0, order[:pruned], 0.0))
            for p in (last.weight, last.bias)
            if p is not None
        ]
        train_student(student, lesson, self.schedule, generator=generator, progress=progress, description="fine-tuning")
        for handle in handles:
            handle.remove()
        return None


@torch.no_grad()
def last_convolution(student: Classifier, images: Tensor) -> tuple[nn.Conv2d, Tensor]:
    """The convolution that runs last, and the mean of what is positive in each of its output channels, float [C].

    Raises UnsupportedError if the network has none.
    """
    layers = {name: m for name, m in student.module.named_modules() if isinstance(m, nn.Conv2d)}
    if not layers:
        raise UnsupportedError("fp prunes the last convolution, and this network has none")
    ran: dict[str, Tensor] = {}
    total: dict[str, Tensor] = {}
    with captured(layers) as outputs:
        for batch in images.split(256):
            outputs.clear()
            student(batch)
            ran = dict(outputs)
            name = next(reversed(ran))
            total[name] = total.get(name, torch.zeros((), device=images.device)) + ran[name].relu().sum((0, 2, 3))
    if not ran:
        raise UnsupportedError("fp prunes the last convolution, and this network calls none of its own")
    name = next(reversed(ran))
    return layers[name], total[name] / len(images)


@torch.no_grad()
def _silence(layer: nn.Conv2d, channels: Tensor) -> None:
    layer.weight[channels] = 0
    if layer.bias is not None:
        layer.bias[channels] = 0
