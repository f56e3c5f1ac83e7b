"""BNA: match the distribution of every neuron on triggered images to that on clean ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.corrected import PARAMETERS, CorrectedClassifier
from untrojan.classifier.sites import captured, require_sites
from untrojan.correction.base import Correction, Task
from untrojan.correction.divergence import DIVERGENCES
from untrojan.correction.histogram import Bins, soft_histogram
from untrojan.errors import UntrojanError, UsageError
from untrojan.progress import Progress
from untrojan.triggers import AdditiveTrigger, Trigger

Corner = tuple[float, float]


class BNA(Correction):
    """Backdoor mitigation by reversing the alteration of activation distributions.

    Source: "Backdoor mitigation by correcting activation distribution alteration", Neurocomputing 614, 2025 (arXiv
    2308.09850), Sec. 4.2: mu, sigma and the clip of every neuron that a BatchNorm follows, jointly over all layers,
    by Adam on the summed divergence between soft histograms. In a network without BatchNorm, those of the layers that
    ``find_sites`` names; their neurons are channels, or the features of tokens.

    epochs: passes over the source images; if given, it takes the place of ``steps``.
    pairing: compare with the clean histogram of the same images (less sampling noise) instead of all images.
    magnitude: additive surrogates are scaled by a factor drawn per image from [1, magnitude].
    grid: at most grid x grid positions of a feature map enter the histograms of a step, evenly spaced from a random
    corner; neighbours say nearly the same. 0 takes all.
    clean_weight: weight of a second term that asks g to leave the distributions of the target class's clean images as
    they are, times the number of these per source image; 0 is the paper's objective.
    answer_weight: weight of the Kullback-Leibler divergence of g's answer to a stamped image from f's answer to the
    same image clean (and of g's to the target class's clean images from f's): distributions of single channels can
    match while what they say together does not. Only with ``pairing``; 0 is the paper's objective.
    """

    name = "bna"

    def __init__(
        self,
        *,
        steps: int = 180,
        epochs: int | None = None,
        batch_size: int = 64,
        learning_rate: float = 0.1,
        divergence: str = "tv",
        tau: float = 150.0,
        bin_width: float = 0.1,
        pairing: bool = True,
        magnitude: float = 2.0,
        clean_weight: float = 2.0,
        grid: int = 8,
        answer_weight: float = 30.0,
    ):
        if divergence not in DIVERGENCES:
            raise UsageError(f"divergence '{divergence}' is not one of {', '.join(DIVERGENCES)}")
        if not tau > 0 or not bin_width > 0:
            raise UsageError(f"bna: tau and bin_width are positive, got {tau:g} and {bin_width:g}")
        if steps < 1 or (epochs is not None and epochs < 1):
            raise UsageError(f"bna: steps and epochs are 1 or more, got {steps} and {epochs}")
        if batch_size < 2 or not learning_rate > 0 or magnitude < 1 or min(clean_weight, answer_weight, grid) < 0:
            raise UsageError("bna: batch_size >= 2, learning_rate > 0, magnitude >= 1, weights >= 0, grid >= 0")
        self.steps, self.epochs = steps, epochs
        self.batch_size, self.learning_rate = batch_size, learning_rate
        self.divergence, self.tau, self.bin_width = divergence, tau, bin_width
        self.pairing, self.magnitude, self.clean_weight, self.grid = pairing, magnitude, clean_weight, grid
        self.answer_weight = answer_weight

    @classmethod
    def paper(cls) -> dict[str, Any]:
        """Options of the paper's recipe: 30 epochs at 0.01, histograms of all images, no term for clean images."""
        return {
            "epochs": 30,
            "batch_size": 32,
            "learning_rate": 0.01,
            "pairing": False,
            "magnitude": 1.0,
            "clean_weight": 0.0,
            "answer_weight": 0.0,
        }

    def fit(
        self, classifier: Classifier, task: Task, *, generator: torch.Generator, progress: Progress
    ) -> dict[str, Tensor]:
        steps = self.steps if self.epochs is None else self.epochs * -(-len(task.sources) // self.batch_size)
        layers = require_sites(classifier, task.sources)
        ranges = clean_range(classifier, layers, torch.cat([task.sources, task.own]))
        bins = {name: Bins.between(low, high, self.bin_width) for name, (low, high) in ranges.items()}
        corrected = CorrectedClassifier(classifier, sites=layers)
        start_clip(corrected, ranges)
        parameters = [getattr(layer, p) for layer in corrected.layers.values() for p in PARAMETERS]
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimiser = torch.optim.Adam(parameters, lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, eta_min=self.learning_rate / 10)
        whole = None
        if not self.pairing:
            with torch.no_grad():
                whole, _ = self._histograms(classifier, layers, classifier.arranged(task.sources), bins, None)

        def distance(clean: Tensor, seen: Tensor, corner: Corner, wanted: dict[str, Tensor] | None = None) -> Tensor:
            """Between f on clean images and g on what it sees of them: distributions, if not given, and answers."""
            answers = None
            if wanted is None:
                with torch.no_grad():
                    wanted, answers = self._histograms(classifier, layers, classifier.arranged(clean), bins, corner)
            got, given = self._histograms(corrected, corrected.layers, classifier.arranged(seen), bins, corner)
            loss = torch.stack([DIVERGENCES[self.divergence](wanted[n], got[n]) for n in layers]).sum()
            if self.answer_weight and answers is not None:
                loss = loss + self.answer_weight * functional.kl_div(
                    given.log_softmax(1), answers.log_softmax(1), reduction="batchmean", log_target=True
                )
            return loss

        progress.start(f"correcting target {task.target}", steps)
        for _ in range(steps):
            corner = (float(torch.rand(1, generator=generator)), float(torch.rand(1, generator=generator)))
            clean = _draw(task.sources, self.batch_size, generator)
            loss = distance(clean, stamp_mixture(clean, task.surrogates, self.magnitude, generator), corner, whole)
            if self.clean_weight and len(task.own):
                own = _draw(task.own, max(1, self.batch_size // 2), generator)
                share = len(task.own) / len(task.sources)
                loss = loss + self.clean_weight * share * distance(own, own, corner)
            gradients = torch.autograd.grad(loss, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimiser.step()
            schedule.step()
            progress.advance()
        return corrected.theta()

    def _histograms(
        self,
        network: nn.Module,
        layers: Mapping[str, nn.Module],
        images: Tensor,
        bins: Mapping[str, Bins],
        corner: Corner | None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The histograms of all layers, and the logits."""
        with captured(layers) as outputs:
            logits = network(images)
        if not bool(logits.isfinite().all()):
            raise UntrojanError(
                f"bna diverged: answers are no numbers; take a learning_rate below {self.learning_rate:g}"
            )
        grid = self.grid if corner is not None else 0
        return {n: soft_histogram(thinned(outputs[n], grid, corner), bins[n], self.tau) for n in layers}, logits


def thinned(values: Tensor, grid: int, corner: Corner | None) -> Tensor:
    """Every k-th row and column of feature maps [N, C, H, W] larger than grid x grid, from a corner in [0, 1)².

    Of sequences [N, C, T] every k-th place, where there are more than grid x grid.
    """
    if values.ndim not in (3, 4) or grid == 0 or corner is None:
        return values
    if values.ndim == 3:
        places = max(1, values.shape[2] // grid**2)
        return values[:, :, int(corner[0] * places) :: places]
    rows, columns = max(1, values.shape[2] // grid), max(1, values.shape[3] // grid)
    return values[:, :, int(corner[0] * rows) :: rows, int(corner[1] * columns) :: columns]


@torch.no_grad()
def clean_range(
    classifier: Classifier, layers: Mapping[str, nn.Module], images: Tensor, batch_size: int = 256
) -> dict[str, tuple[Tensor, Tensor]]:
    """Smallest and largest clean activation of every neuron of these layers' outputs: layer to ([C], [C])."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    with captured(layers) as outputs:
        for batch in images.split(batch_size):
            classifier(classifier.arranged(batch))
            for name, output in outputs.items():
                values = output.float().movedim(1, 0).flatten(1)
                low, high = values.amin(1), values.amax(1)
                if name in found:
                    low, high = torch.minimum(found[name][0], low), torch.maximum(found[name][1], high)
                found[name] = low, high
    return found


@torch.no_grad()
def start_clip(corrected: CorrectedClassifier, ranges: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Start the clip at the clean extremes: an infinite one gets no gradient."""
    for name, layer in corrected.layers.items():
        layer.low.copy_(ranges[name][0].expand_as(layer.low))
        layer.high.copy_(ranges[name][1].expand_as(layer.high))


def stamp_mixture(
    images: Tensor, surrogates: Sequence[Trigger], magnitude: float, generator: torch.Generator
) -> Tensor:
    """Each image with one random surrogate; additive ones at a random strength in [1, magnitude]."""
    choice = torch.randint(len(surrogates), (len(images),), generator=generator)
    strength = 1 + (magnitude - 1) * torch.rand(len(images), generator=generator)
    stamped = torch.empty_like(images)
    for i, surrogate in enumerate(surrogates):
        rows = (choice == i).nonzero().flatten()
        if len(rows) == 0:
            continue
        if isinstance(surrogate, AdditiveTrigger):
            scale = strength[rows].view(-1, 1, 1, 1).to(images.device)
            stamped[rows] = (images[rows] + scale * surrogate.delta.to(images.device)).clamp(0, 1)
        else:
            stamped[rows] = surrogate.apply(images[rows]).clamp(0, 1)
    return stamped


def _draw(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return images[torch.randperm(len(images), generator=generator)[:count]]
