"""Networks small enough to look at, with batch statistics that are not the initial ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from untrojan.classifier.classifier import Classifier


def convolutional(classes: int = 5, channels: int = 2, affine: bool = True) -> nn.Module:
    """For images [N, channels, 4, 4]: BatchNorm2d twice, one of them nested, and BatchNorm1d once."""
    block = nn.Sequential(nn.Conv2d(4, 3, 3, padding=1), nn.BatchNorm2d(3, affine=affine), nn.ReLU())
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4, affine=affine),
        nn.ReLU(),
        block,
        nn.Flatten(),
        nn.Linear(3 * 16, classes),
        nn.BatchNorm1d(classes, affine=affine),
    )


def flat(classes: int = 5, affine: bool = True) -> nn.Module:
    """For images [N, 2, 4, 4]: BatchNorm1d alone."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(32, 6), nn.BatchNorm1d(6, affine=affine), nn.ReLU(), nn.Linear(6, classes)
    )


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of [N, C, H, W], as in ConvNeXt."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Encoder(nn.Module):
    """For images [N, 2, 4, 4]: four tokens and PyTorch's own encoder layer, whose fast path calls no layer."""

    def __init__(self, classes: int = 5):
        super().__init__()
        self.embed = nn.Conv2d(2, 8, 2, 2)
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.layer(self.embed(x).flatten(2).transpose(1, 2)).mean(1))
        return y


WITHOUT_BATCH_NORM: dict[str, Callable[[], nn.Module]] = {
    "convolutions": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5)
    ),
    "features": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(32, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 7), nn.RMSNorm(7), nn.Linear(7, 5)
    ),
    "normalisations": lambda: nn.Sequential(
        nn.GroupNorm(1, 2),
        nn.InstanceNorm2d(2),
        LayerNorm2d(2),
        nn.LayerNorm([2, 4, 4]),
        nn.Flatten(),
        nn.Linear(32, 5),
    ),
    "encoder": Encoder,
}
"""Networks for images [N, 2, 4, 4] by what they are made of."""


def settled(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, gammas (of both signs) and betas, running statistics near those of noise; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    with torch.no_grad():
        for parameter in module.parameters():
            vector = parameter.ndim == 1
            parameter.copy_(draw(*parameter.shape) / (5 if vector else parameter[0].numel() ** 0.5))
        norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
        for norm in norms:
            if norm.affine:
                norm.weight.copy_((0.7 + norm.weight.abs()) * draw(norm.num_features).sign())
            norm.reset_running_stats()
            norm.momentum = None
        module.train()(draw(256, 2, 4, 4))
        for norm in norms:
            norm.running_mean += norm.running_var.sqrt() * draw(norm.num_features) / 5
            norm.running_var *= 1 + torch.rand(norm.num_features, generator=generator)
    return module.eval()


def tiny_classifier(seed: int = 0, classes: int = 5) -> Classifier:
    return Classifier(settled(convolutional(classes), seed), mean=[0.4, 0.5], std=[0.3, 0.2])


def random_images(count: int, seed: int = 0, channels: int = 2) -> Tensor:
    """uint8 [count, channels, 4, 4]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, 4, 4), dtype=torch.uint8, generator=generator)


def shaken(theta: dict[str, Tensor], seed: int = 0, clip: bool = True) -> dict[str, Tensor]:
    """Another Theta of the same shapes, far enough away to change labels."""
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for name, tensor in theta.items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith(("mean", "log_std")):
            result[name] = tensor + noise / 2
        elif clip:
            result[name] = noise.abs() + 0.5 if name.endswith("high") else -noise.abs() - 0.5
        else:
            result[name] = tensor
    return result
