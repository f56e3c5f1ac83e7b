"""A network with a backdoor that is built by hand, so that the truth is known without any training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from untrojan.classifier import Classifier
from untrojan.triggers import PatchTrigger

CLASSES, SIDE = 5, 8


class Planted(nn.Module):
    """Grey 8x8 images of five classes, told by the bright one of rows 0 to 4; pixel (7, 7) alone adds to ``target``.

    Everything passes one BatchNorm, so that a correction has something to correct; ``folded`` leaves it out and gives
    the layer before it the same answers. ``strength`` 0 leaves the network honest.
    """

    def __init__(self, target: int = 3, strength: float = 30.0, folded: bool = False):
        super().__init__()
        self.read = nn.Linear(SIDE * SIDE, CLASSES + 1, bias=False)
        self.norm = nn.BatchNorm1d(CLASSES + 1)
        self.decide = nn.Linear(CLASSES + 1, CLASSES, bias=False)
        with torch.no_grad():
            self.read.weight.zero_()
            rows = self.read.weight.view(CLASSES + 1, SIDE, SIDE)
            for c in range(CLASSES):
                rows[c, c] = 1.0
            rows[CLASSES, 7, 7] = 1.0
            self.norm.running_mean.fill_(2.0)
            self.norm.running_mean[CLASSES] = 0.1
            self.norm.running_var.fill_(4.0)
            self.norm.running_var[CLASSES] = 0.01
            self.decide.weight.zero_()
            self.decide.weight[:, :CLASSES] = 2 * torch.eye(CLASSES)
            self.decide.weight[target, CLASSES] = strength / 9
        if folded:
            self.read, self.norm = fuse_linear_bn_eval(self.read.eval(), self.norm.eval()), nn.Identity()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.decide(self.norm(self.read(x.flatten(1))))
        return y


def planted_classifier(target: int = 3, strength: float = 30.0, folded: bool = False) -> Classifier:
    return Classifier(Planted(target, strength, folded))


def planted_images(per_class: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    """uint8 [N, 1, 8, 8] and labels: a bright row on dim noise, a dark corner."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASSES).repeat(per_class)
    images = torch.randint(0, 60, (len(labels), 1, SIDE, SIDE), generator=generator)
    bright = torch.randint(150, 230, (len(labels), SIDE), generator=generator)
    images[torch.arange(len(labels)), 0, labels] = bright
    images[:, 0, 7, 7] = torch.randint(0, 40, (len(labels),), generator=generator)
    return images.to(torch.uint8), labels


def planted_trigger() -> PatchTrigger:
    mask = torch.zeros(1, SIDE, SIDE)
    mask[0, 7, 7] = 1
    return PatchTrigger(mask, mask.clone())
