"""One training loop for CPU and GPU: data on the device, augmentation there, mixed precision where it is fast."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from untrojan.attacks import Game
from untrojan.errors import DataError, UsageError
from untrojan.victims.checkpoint import Checkpoint, State

AUGMENTATIONS = ("none", "flip", "crop", "crop-flip")
OPTIMISERS = ("adam", "sgd")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a victim is trained: Adam under a one-cycle schedule, which needs fewer epochs than the paper's steps.

    optimiser: "adam" or "sgd" (momentum .9). label_smoothing: share of the label given to all classes; mixup: whether
    images and labels are mixed in pairs (Zhang et al., ICLR 2018); adversarial: radius in units of 1/255 within which
    every image is made worse by one step of its gradient's sign (Goodfellow et al., ICLR 2015), 0 for none. An attack
    that is trained along has a loss of its own, and these three count for nothing there.

    Shifted and mirrored training images move the trigger too, so a small network needs far more epochs to learn it: a
    ResNet-18 of width 8 knew the 3 x 3 patch and the chessboard of 2/255 after 4 epochs without, not after 5 with.
    """

    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 0.003
    weight_decay: float = 1e-4
    augmentation: str = "none"
    optimiser: str = "adam"
    label_smoothing: float = 0.0
    mixup: bool = False
    adversarial: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or not self.learning_rate > 0:
            raise UsageError("training needs at least 1 epoch, batches of at least 2 images and a positive rate")
        if self.augmentation not in AUGMENTATIONS:
            raise UsageError(f"augmentation '{self.augmentation}' is not one of {', '.join(AUGMENTATIONS)}")
        if self.optimiser not in OPTIMISERS:
            raise UsageError(f"optimiser '{self.optimiser}' is not one of {', '.join(OPTIMISERS)}")
        if not 0 <= self.label_smoothing < 1 or not 0 <= self.adversarial <= 255 or self.weight_decay < 0:
            raise UsageError("label smoothing is in [0, 1), the adversarial radius in [0, 255], weight decay at least 0")

    def batch(self, images: int) -> int:
        """Images in a batch, an even number: see ``train``."""
        return min(self.batch_size, images) // 2 * 2

    def steps(self, images: int) -> int:
        """Steps of one epoch over so many images."""
        return images // self.batch(images)


def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: TrainingSettings,
    *,
    seed: int,
    device: torch.device,
    game: Game | None = None,
    checkpoint: Checkpoint | None = None,
    on_epoch: Callable[[int, float], Mapping[str, float | None]] | None = None,
    on_step: Callable[[], None] | None = None,
) -> list[dict[str, float | None]]:
    """Train ``network`` in place on images uint8 [N, C, H, W] with labels int64 [N]; one row of history per epoch.

    The global random state is not touched. game: an attack's own networks and loss, trained along. checkpoint: written
    after every epoch, and gone on from if it holds an earlier state of this very training; on a CPU the weights at the
    end are those of a training that was never interrupted. ``on_epoch`` gets the epoch's number and mean loss, with the
    network in evaluation mode, and returns what else is to stand in its row; ``on_step`` is called after each step.
    """
    if len(images) < 2 or len(images) != len(labels):
        raise DataError(f"training needs images and as many labels, got {len(images)} and {len(labels)}")
    network.to(device)
    layout = memory_format(network, device)
    network.to(memory_format=layout)  # type: ignore[call-overload]
    images, labels = images.to(device), labels.to(device)
    generator = torch.Generator(device).manual_seed(seed)
    # Batches of one even size (see ``memory_format``): the remainder of each shuffle waits for the next epoch.
    batch_size, steps = settings.batch(len(images)), settings.steps(len(images))
    groups, rates = [{"params": list(network.parameters())}], [settings.learning_rate]
    if game is not None:
        game.networks.to(device).train()
        groups.append({"params": list(game.networks.parameters())})
        rates.append(game.learning_rate)
    optimiser = _optimiser(groups, settings)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=rates, total_steps=settings.epochs * steps, pct_start=0.3
    )
    state = State(network, optimiser, schedule, generator, game)
    history = checkpoint.load(state) if checkpoint is not None else []
    for epoch in range(len(history), settings.epochs):
        network.train()
        losses = []
        order = torch.randperm(len(images), generator=generator, device=device)[: steps * batch_size]
        for step, index in enumerate(order.view(steps, batch_size)):
            batch = augment(images[index], settings.augmentation, generator).float() / 255
            # A copy, since of one channel both layouts are contiguous, and the strides that say which would stay.
            batch = batch.clone(memory_format=layout)
            if game is None:
                loss = _loss(network, batch, labels[index], settings, generator)
            else:
                # In float32: what is learnt together is as faint as bfloat16's step.
                progress = (epoch + step / steps) / settings.epochs
                loss = game.loss(network, batch, labels[index], generator, progress)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.detach())
            if on_step:
                on_step()
        network.eval()
        mean = float(torch.stack(losses).mean())
        history.append({"epoch": epoch + 1, "loss": mean, **(on_epoch(epoch, mean) if on_epoch else {})})
        if checkpoint is not None and epoch + 1 < settings.epochs:
            checkpoint.save(state, history)
    return history


def _optimiser(groups: list[dict[str, Any]], settings: TrainingSettings) -> torch.optim.Optimizer:
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=0.9, weight_decay=settings.weight_decay)
    return torch.optim.Adam(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _loss(
    network: nn.Module, batch: Tensor, labels: Tensor, settings: TrainingSettings, generator: torch.Generator
) -> Tensor:
    """The loss of a batch of clean or poisoned images, float [N, C, H, W] in [0, 1]; labels: int64 [N]."""
    others, share = labels, 1.0
    if settings.mixup:
        share = float(torch.rand((), generator=generator, device=batch.device))
        order = torch.randperm(len(batch), generator=generator, device=batch.device)
        batch, others = share * batch + (1 - share) * batch[order], labels[order]
    if settings.adversarial:
        batch = _worsened(network, batch, labels, settings.adversarial / 255)
    with mixed_precision(network, batch.device):
        logits = network(batch)
    loss = functional.cross_entropy(logits.float(), labels, label_smoothing=settings.label_smoothing)
    if others is labels:
        return loss
    second = functional.cross_entropy(logits.float(), others, label_smoothing=settings.label_smoothing)
    return share * loss + (1 - share) * second


def _worsened(network: nn.Module, batch: Tensor, labels: Tensor, radius: float) -> Tensor:
    with mixed_precision(network, batch.device):
        loss = functional.cross_entropy(network(batch.requires_grad_(True)).float(), labels)
    (gradient,) = torch.autograd.grad(loss, batch)
    return (batch.detach() + radius * gradient.sign()).clamp(0, 1)


def memory_format(network: nn.Module, device: torch.device) -> torch.memory_format:
    """Channels last, in which convolutions are fastest, wherever that is safe.

    On a CPU oneDNN (torch 2.13) writes out of bounds in the weight gradient of a strided 1x1 convolution over
    channels-last channels, if their number is no multiple of 8 (on one thread, whatever the batch; with 8 channels, if
    the number of images is odd).
    """
    risky = any(
        isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.stride != (1, 1) and m.in_channels % 8
        for m in network.modules()
    )
    return torch.contiguous_format if risky and device.type == "cpu" else torch.channels_last


def augment(images: Tensor, kind: str, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Random mirror ("flip"), shift within ``padding`` pixels of zeros ("crop"), or both: [N, C, H, W] to the same."""
    if kind == "none":
        return images
    if kind == "flip":
        mirrored = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
        return torch.where(mirrored, images.flip(3), images)
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


def mixed_precision(network: nn.Module, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """bfloat16 autocast where it makes training quicker, otherwise nothing.

    bfloat16's step near 1 is 1/256, as large as a faint trigger: the networks of this package keep their first layer
    in float32 under autocast. On a CPU the backward pass of a depthwise convolution (torch 2.13) is so slow in bfloat16
    that a step of a MobileNet of width 8 took 93 ms, and 59 in float32 on the same core.
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    if device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported() and not _depthwise(network):
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def _depthwise(network: nn.Module) -> bool:
    return any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in network.modules())
