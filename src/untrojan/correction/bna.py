"""BNA: match the distribution of every neuron on triggered images to that on clean ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.corrected import CorrectedClassifier
from untrojan.classifier.sites import captured, require_sites
from untrojan.correction.base import Correction, Task
from untrojan.correction.divergence import DIVERGENCES
from untrojan.correction.histogram import Bins, soft_histogram
from untrojan.correction.moves import Clean, Moves, clean_activations, start_clip
from untrojan.errors import UntrojanError, UsageError
from untrojan.progress import Progress
from untrojan.triggers import AdditiveTrigger, Trigger

Corner = tuple[float, float]

FLATTEST = 0.1
"""Least slope times width of the histogram's bins; the paper's are 15."""

DIVERGED = 1.5
"""A loss that ends at more than so many times what it was has diverged."""


class BNA(Correction):
    """Backdoor mitigation by reversing the alteration of activation distributions.

    Source: "Backdoor mitigation by correcting activation distribution alteration", Neurocomputing 614, 2025 (arXiv
    2308.09850), Sec. 4.2: mu, sigma and the clip of every neuron that a BatchNorm follows, jointly over all layers,
    by Adam on the summed divergence between soft histograms. In a network without BatchNorm, those of the layers that
    ``find_sites`` names; their neurons are channels, or the features of tokens.

    epochs: passes over the source images; if given, it takes the place of ``steps``.
    pairing: compare with the clean histogram of the same images (less sampling noise) instead of all images.
    magnitude: additive surrogates are scaled by a factor drawn per image from [1, magnitude].
    blend: so many additive surrogates are mixed for each image, in random shares; 1 shows each alone. What the victim
    obeys lies between the directions that single searches end in.
    grid: at most grid x grid positions of a feature map enter the histograms of a step, evenly spaced from a random
    corner; neighbours say nearly the same. 0 takes all.
    clean_weight: weight of a second term that asks g to leave the distributions of the target class's clean images as
    they are, times the number of these per source image; 0 is the paper's objective.
    answer_weight: weight of the Kullback-Leibler divergence of g's answer to a stamped image from f's answer to the
    same image clean (and of g's to the target class's clean images from f's): distributions of single channels can
    match while what they say together does not. Only with ``pairing``; 0 is the paper's objective.
    batch_size: of fewer images where so many do not fit into a pass (``Classifier.images_per_pass``).
    spread: steps are in units of each neuron's spread on clean images, so that no activation's unit matters, and
    ``learning_rate`` is a share of it; otherwise, as in the paper, in the activations' own units.
    attempts: where the loss diverges all is done again at a third of the rate, at most so many times in all; the one
    that ends lowest counts.
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
        blend: int = 4,
        clean_weight: float = 2.0,
        grid: int = 8,
        answer_weight: float = 30.0,
        spread: bool = True,
        attempts: int = 3,
    ):
        if divergence not in DIVERGENCES:
            raise UsageError(f"divergence '{divergence}' is not one of {', '.join(DIVERGENCES)}")
        if not tau > 0 or not bin_width > 0:
            raise UsageError(f"bna: tau and bin_width are positive, got {tau:g} and {bin_width:g}")
        if tau * bin_width < FLATTEST:
            raise UsageError(
                f"bna: an edge of slope {tau:g} is far wider than bins of {bin_width:g}, and a value would lie in "
                f"hundreds of them; tau times bin_width is at least {FLATTEST:g}"
            )
        if min(steps, attempts) < 1 or (epochs is not None and epochs < 1):
            raise UsageError(f"bna: steps, attempts and epochs are 1 or more, got {steps}, {attempts} and {epochs}")
        if batch_size < 2 or not learning_rate > 0 or min(clean_weight, answer_weight, grid) < 0:
            raise UsageError("bna: batch_size >= 2, learning_rate > 0, weights >= 0, grid >= 0")
        if magnitude < 1 or blend < 1:
            raise UsageError(f"bna: magnitude and blend are 1 or more, got {magnitude:g} and {blend}")
        self.steps, self.epochs = steps, epochs
        self.batch_size, self.learning_rate = batch_size, learning_rate
        self.divergence, self.tau, self.bin_width = divergence, tau, bin_width
        self.pairing, self.magnitude, self.clean_weight, self.grid = pairing, magnitude, clean_weight, grid
        self.answer_weight, self.spread, self.attempts, self.blend = answer_weight, spread, attempts, blend

    @classmethod
    def paper(cls) -> dict[str, Any]:
        """Options of the paper's recipe: 30 epochs at 0.01, histograms of all images, no term for clean images."""
        return {
            "epochs": 30,
            "batch_size": 32,
            "learning_rate": 0.01,
            "pairing": False,
            "magnitude": 1.0,
            "blend": 1,
            "clean_weight": 0.0,
            "answer_weight": 0.0,
            "spread": False,
            "attempts": 1,
        }

    def fit(
        self, classifier: Classifier, task: Task, *, generator: torch.Generator, progress: Progress
    ) -> dict[str, Tensor]:
        steps = self.steps if self.epochs is None else self.epochs * -(-len(task.sources) // self.batch_size)
        layers = require_sites(classifier, task.sources)
        clean = clean_activations(classifier, layers, torch.cat([task.sources, task.own]))
        objective = _Objective(self, classifier, layers, clean, task, generator)
        lowest, best = math.nan, dict[str, Tensor]()
        for attempt in range(self.attempts):
            corrected = CorrectedClassifier(classifier, sites=layers)
            start_clip(corrected, clean)
            moves = Moves(corrected, clean if self.spread else None)
            rate = self.learning_rate / 3**attempt
            optimiser = torch.optim.Adam(moves.steps, lr=rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, eta_min=rate / 10)
            progress.start(f"correcting target {task.target}{', in smaller steps' if attempt else ''}", steps)
            losses = []
            try:
                for _ in range(steps):
                    loss = objective(corrected)
                    losses.append(loss.detach())
                    moves.gradients_of(loss)
                    optimiser.step()
                    moves.take()
                    schedule.step()
                    progress.advance()
            except NoNumbersError:
                if attempt == self.attempts - 1 and not best:
                    raise
                continue
            end = float(torch.stack(losses[-max(1, steps // 10) :]).mean())
            if math.isnan(lowest) or end < lowest:
                lowest, best = end, corrected.theta()
            if end <= DIVERGED * float(losses[0]):
                break
        return best


class NoNumbersError(UntrojanError):
    """The corrected network's answers are NaN or infinite."""


class _Objective:
    """What BNA makes small: how far g on stamped images is from f on the same images clean, and, of the target class's
    clean images, from what they were. Every call draws anew."""

    def __init__(
        self,
        method: BNA,
        classifier: Classifier,
        layers: Mapping[str, nn.Module],
        clean: Mapping[str, Clean],
        task: Task,
        generator: torch.Generator,
    ):
        self.method, self.classifier, self.layers, self.task = method, classifier, layers, task
        self.generator = generator
        self.batch_size = min(method.batch_size, classifier.images_per_pass or method.batch_size)
        self.bins = {name: Bins.between(seen.low, seen.high, method.bin_width) for name, seen in clean.items()}
        self.whole: dict[str, Tensor] | None = None
        if not method.pairing:
            with torch.no_grad():
                self.whole, _ = self._histograms(classifier, layers, task.sources, None)

    def __call__(self, corrected: CorrectedClassifier) -> Tensor:
        method, task = self.method, self.task
        corner = (float(torch.rand(1, generator=self.generator)), float(torch.rand(1, generator=self.generator)))
        shown = _draw(task.sources, self.batch_size, self.generator)
        stamped = stamp_mixture(shown, task.surrogates, method.magnitude, method.blend, self.generator)
        loss = self._distance(corrected, shown, stamped, corner, self.whole)
        if method.clean_weight and len(task.own):
            own = _draw(task.own, max(1, self.batch_size // 2), self.generator)
            share = len(task.own) / len(task.sources)
            loss = loss + method.clean_weight * share * self._distance(corrected, own, own, corner)
        return loss

    def _distance(
        self,
        corrected: CorrectedClassifier,
        images: Tensor,
        seen: Tensor,
        corner: Corner,
        wanted: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Between f on clean images and g on what it sees of them: distributions, if not given, and answers."""
        answers = None
        if wanted is None:
            with torch.no_grad():
                wanted, answers = self._histograms(self.classifier, self.layers, images, corner)
        got, given = self._histograms(corrected, corrected.layers, seen, corner)
        divergence = DIVERGENCES[self.method.divergence]
        loss = torch.stack([divergence(wanted[n], got[n]) for n in self.layers]).sum()
        if self.method.answer_weight and answers is not None:
            loss = loss + self.method.answer_weight * functional.kl_div(
                given.log_softmax(1), answers.log_softmax(1), reduction="batchmean", log_target=True
            )
        return loss

    def _histograms(
        self, network: nn.Module, layers: Mapping[str, nn.Module], images: Tensor, corner: Corner | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The histograms of all layers, and the logits."""
        with captured(layers) as outputs:
            logits = network(self.classifier.arranged(images))
        if not bool(logits.isfinite().all()):
            raise NoNumbersError(
                f"bna diverged: answers are no numbers; take a learning_rate below {self.method.learning_rate:g}"
            )
        grid, tau = self.method.grid if corner is not None else 0, self.method.tau
        return {n: soft_histogram(thinned(outputs[n], grid, corner), self.bins[n], tau) for n in layers}, logits


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


def stamp_mixture(
    images: Tensor, surrogates: Sequence[Trigger], magnitude: float, blend: int, generator: torch.Generator
) -> Tensor:
    """Each image with one random surrogate; an additive one is mixed with ``blend`` - 1 other random ones, and has a
    random strength in [1, magnitude]."""
    choice = torch.randint(len(surrogates), (len(images),), generator=generator)
    strength = 1 + (magnitude - 1) * torch.rand(len(images), generator=generator)
    stamped = torch.empty_like(images)
    additive = [i for i, surrogate in enumerate(surrogates) if isinstance(surrogate, AdditiveTrigger)]
    for i, surrogate in enumerate(surrogates):
        rows = (choice == i).nonzero().flatten()
        if i not in additive and len(rows):
            stamped[rows] = surrogate.apply(images[rows]).clamp(0, 1)
    rows = torch.isin(choice, torch.tensor(additive, dtype=torch.int64)).nonzero().flatten()
    if len(rows):
        deltas = torch.stack([one.delta.cpu() for one in surrogates if isinstance(one, AdditiveTrigger)])
        added = strength[rows].view(-1, 1, 1, 1) * blended(deltas, len(rows), blend, generator)
        stamped[rows] = (images[rows] + added.to(images.device)).clamp(0, 1)
    return stamped


def blended(deltas: Tensor, count: int, blend: int, generator: torch.Generator) -> Tensor:
    """float [count, C, H, W]: mixtures of ``blend`` random ones of deltas [S, C, H, W], in evenly distributed shares.

    Each has the mean L2 norm of those in it, weighted as they are: alone a sum of what points elsewhere is smaller.
    On the CPU, as the generator is.
    """
    chosen = torch.rand(count, len(deltas), generator=generator).argsort(1)[:, :blend]
    shares = torch.rand(chosen.shape, generator=generator).clamp_min(1e-9).log()
    shares = shares / shares.sum(1, keepdim=True)
    mixed = (shares[:, :, None, None, None] * deltas[chosen]).sum(1)
    norms = (shares * deltas.flatten(1).norm(dim=1)[chosen]).sum(1)
    sized: Tensor = mixed * (norms / mixed.flatten(1).norm(dim=1).clamp_min(1e-9)).view(-1, 1, 1, 1)
    return sized


def _draw(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return images[torch.randperm(len(images), generator=generator)[:count]]
