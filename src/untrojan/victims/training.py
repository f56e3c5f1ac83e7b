"""One training loop for CPU and GPU: data on the device, augmentation there, mixed precision where it is fast."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from untrojan.errors import DataError, UsageError

AUGMENTATIONS = ("none", "crop", "crop-flip")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a victim is trained: Adam under a one-cycle schedule, which needs fewer epochs than the paper's steps."""

    epochs: int = 8
    batch_size: int = 128
    learning_rate: float = 0.01
    weight_decay: float = 1e-4
    augmentation: str = "crop-flip"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or not self.learning_rate > 0:
            raise UsageError("training needs at least 1 epoch, batches of at least 2 images and a positive rate")
        if self.augmentation not in AUGMENTATIONS:
            raise UsageError(f"augmentation '{self.augmentation}' is not one of {', '.join(AUGMENTATIONS)}")


def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: TrainingSettings,
    *,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[int, float], None] | None = None,
    on_step: Callable[[], None] | None = None,
) -> None:
    """Train ``network`` in place on images uint8 [N, C, H, W] with labels int64 [N].

    The global random state is not touched. ``on_epoch`` gets the epoch's number and mean loss; ``on_step`` is called
    after each of ``epochs * (N // batch_size)`` steps.
    """
    if len(images) < 2 or len(images) != len(labels):
        raise DataError(f"training needs images and as many labels, got {len(images)} and {len(labels)}")
    network.to(device).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, labels = images.to(device), labels.to(device)
    generator = torch.Generator(device).manual_seed(seed)
    # Batches of one even size: the remainder of each shuffle waits for the next epoch. A batch of one image would break
    # BatchNorm, and oneDNN (torch 2.13) writes out of bounds in the weight gradient of a strided 1x1 convolution over
    # 8 channels-last channels when the number of images is odd.
    batch_size = min(settings.batch_size, len(images)) // 2 * 2
    steps = len(images) // batch_size
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=settings.learning_rate, total_steps=settings.epochs * steps, pct_start=0.3
    )
    for epoch in range(settings.epochs):
        losses = []
        order = torch.randperm(len(images), generator=generator, device=device)[: steps * batch_size]
        for index in order.view(steps, batch_size):
            batch = augment(images[index], settings.augmentation, generator).float() / 255
            batch = batch.contiguous(memory_format=torch.channels_last)
            with mixed_precision(device):
                logits = network(batch)
            loss = functional.cross_entropy(logits.float(), labels[index])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.detach())
            if on_step:
                on_step()
        if on_epoch:
            on_epoch(epoch, float(torch.stack(losses).mean()))
    network.eval()


def augment(images: Tensor, kind: str, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Random shift within ``padding`` pixels of zeros ("crop"), and mirror ("crop-flip"): [N, C, H, W] to the same."""
    if kind == "none":
        return images
    count, _, height, width = images.shape
    device = images.device
    padded = functional.pad(images, [padding] * 4)
    shift = torch.randint(2 * padding + 1, (2, count, 1), generator=generator, device=device)
    rows = shift[0] + torch.arange(height, device=device)
    columns = shift[1] + torch.arange(width, device=device)
    if kind == "crop-flip":
        mirrored = torch.rand(count, 1, generator=generator, device=device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    sample = torch.arange(count, device=device)[:, None, None]
    # Advanced indices around a slice put the channels last: [N, H, W, C].
    return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def mixed_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """bfloat16 autocast where the processor multiplies it natively, otherwise nothing.

    bfloat16's step near 1 is 1/256, as large as a faint trigger: the networks of this package keep their first layer
    in float32 under autocast.
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    if device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()
