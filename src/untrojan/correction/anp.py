"""Adversarial neuron pruning (Wu and Wang, NeurIPS 2021): channels that small changes turn to the target go."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.sites import batch_norms
from untrojan.correction.tuning import Lesson, Tuning
from untrojan.errors import UnsupportedError, UsageError
from untrojan.progress import Progress


class ANP(Tuning):
    """Learns a mask of all channels under adversarial noise, and prunes the channels of which it leaves little.

    Each step draws the noise of every channel's scale and offset anew, moves it by one step of size ``epsilon`` uphill,
    and takes a step downhill for the mask on ``alpha`` times the loss without and 1 - alpha times that with the noise.
    Pruned is a channel whose mask is at most a threshold: the highest at which the accuracy on held-back images falls
    by at most ``tolerance``; the paper sets it by hand, BackdoorBench by the test images. Settings: the authors'
    (epsilon 0.4, alpha 0.2, SGD at 0.2, 128 images a step), with 500 steps instead of 2,000. BatchNorms normalise by
    the batch while the mask is learned, as in the authors' code: with the running statistics the noise of many layers
    adds up, and the mask of a small network went to zero in channels that it needs. Acts on BatchNorms, on convolutions
    and linear layers where there are none.
    """

    name = "anp"

    def __init__(
        self,
        *,
        steps: int = 500,
        batch_size: int = 128,
        learning_rate: float = 0.2,
        epsilon: float = 0.4,
        alpha: float = 0.2,
        tolerance: float = 0.04,
    ):
        if steps < 1 or batch_size < 2 or not learning_rate > 0:
            raise UsageError("anp: steps >= 1, batch_size >= 2 and learning_rate > 0")
        if not epsilon >= 0 or not 0 <= alpha <= 1 or not 0 <= tolerance < 1:
            raise UsageError("anp: epsilon >= 0, alpha in [0, 1] and tolerance in [0, 1)")
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate
        self.epsilon, self.alpha, self.tolerance = epsilon, alpha, tolerance

    def tune(
        self, student: Classifier, victim: Classifier, lesson: Lesson, *, generator: torch.Generator, progress: Progress
    ) -> dict[str, Tensor] | None:
        scaled = scaled_layers(student.module)
        student.train()
        norms = list(batch_norms(student.module).values())
        for norm in norms:
            norm.track_running_stats = False  # by the batch, and the running statistics stay
        masks = {
            name: torch.ones(len(layer.weight), device=layer.weight.device, requires_grad=True)
            for name, layer in scaled.items()
        }
        optimiser = torch.optim.SGD(list(masks.values()), lr=self.learning_rate, momentum=0.9)
        for parameter in student.parameters():
            parameter.requires_grad_(False)
        progress.start("masking channels", self.steps)
        for _ in range(self.steps):
            index = torch.randperm(len(lesson.images), generator=generator)[: self.batch_size].to(lesson.images.device)
            images, labels = lesson.images[index], lesson.labels[index]
            noise = self._noise(student, scaled, masks, images, labels, generator)
            loss = self.alpha * _loss(student, scaled, masks, None, images, labels)
            loss = loss + (1 - self.alpha) * _loss(student, scaled, masks, noise, images, labels)
            for mask, gradient in zip(masks.values(), torch.autograd.grad(loss, list(masks.values())), strict=True):
                mask.grad = gradient
            optimiser.step()
            with torch.no_grad():
                for mask in masks.values():
                    mask.clamp_(0, 1)
            progress.advance()
        for norm in norms:
            norm.track_running_stats = True
        student.eval()
        self._prune(student, scaled, {name: mask.detach() for name, mask in masks.items()}, lesson)
        return None

    def _noise(
        self,
        student: Classifier,
        scaled: dict[str, Scaled],
        masks: dict[str, Tensor],
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Noise of each channel's scale and offset, relative to them: drawn, then one step uphill, within epsilon."""

        def drawn(like: Tensor) -> Tensor:
            start = 2 * torch.rand(like.shape, generator=generator) - 1
            return (self.epsilon * start).to(like.device).requires_grad_(True)

        noise = {name: (drawn(mask), drawn(mask)) for name, mask in masks.items()}
        flat = [n for pair in noise.values() for n in pair]
        held = {name: mask.detach() for name, mask in masks.items()}
        gradients = torch.autograd.grad(_loss(student, scaled, held, noise, images, labels), flat, allow_unused=True)
        moved = [
            (n.detach() + (0 if g is None else self.epsilon * g.sign())).clamp(-self.epsilon, self.epsilon)
            for n, g in zip(flat, gradients, strict=True)
        ]
        return {name: (moved[2 * i], moved[2 * i + 1]) for i, name in enumerate(noise)}

    @torch.no_grad()
    def _prune(self, student: Classifier, scaled: dict[str, Scaled], masks: dict[str, Tensor], lesson: Lesson) -> None:
        """Set the scale of the channels under the chosen threshold to zero."""
        least = lesson.held_accuracy(student) - self.tolerance
        whole = {name: layer.weight.detach().clone() for name, layer in scaled.items()}
        chosen = -1.0
        for threshold in torch.arange(0, 1, 0.05).tolist():
            _cut(scaled, whole, masks, threshold)
            if lesson.held_accuracy(student) < least:
                break
            chosen = threshold
        _cut(scaled, whole, masks, chosen)


Scaled = nn.modules.batchnorm._BatchNorm | nn.Conv2d | nn.Linear


def scaled_layers(module: nn.Module) -> dict[str, Scaled]:
    """The layers whose output channels a mask can scale, by name, without the last linear one, the classifier's head.

    BatchNorms with a weight, or convolutions and linear layers if there is none; raises UnsupportedError if there are
    none of these either.
    """
    norms: dict[str, Scaled] = {n: m for n, m in batch_norms(module).items() if m.weight is not None}
    if norms:
        return norms
    others = {n: m for n, m in module.named_modules() if n and isinstance(m, (nn.Conv2d, nn.Linear))}
    linear = [n for n, m in others.items() if isinstance(m, nn.Linear)]
    found: dict[str, Scaled] = {n: m for n, m in others.items() if n != (linear[-1] if linear else None)}
    if not found:
        raise UnsupportedError("anp masks BatchNorms or convolutions, and this network has none")
    return found


def _loss(
    student: Classifier,
    scaled: dict[str, Scaled],
    masks: dict[str, Tensor],
    noise: dict[str, tuple[Tensor, Tensor]] | None,
    images: Tensor,
    labels: Tensor,
) -> Tensor:
    """Cross-entropy with each channel's scale times mask + noise, and its offset times 1 + noise."""
    changed = {}
    for name, layer in scaled.items():
        scale = masks[name] if noise is None else masks[name] + noise[name][0]
        changed[f"module.{name}.weight"] = layer.weight * scale.view(-1, *[1] * (layer.weight.ndim - 1))
        if layer.bias is not None and noise is not None:
            changed[f"module.{name}.bias"] = layer.bias * (1 + noise[name][1])
    logits: Tensor = functional_call(student, changed, (images,))
    return functional.cross_entropy(logits, labels)


def _cut(scaled: dict[str, Scaled], whole: dict[str, Tensor], masks: dict[str, Tensor], threshold: float) -> None:
    for name, layer in scaled.items():
        layer.weight.copy_(whole[name])
        layer.weight[masks[name] <= threshold] = 0
