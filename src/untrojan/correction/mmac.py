"""Maximum-margin activation clipping (Wang et al., 2023, arXiv 2308.04617): bounds that no class can be sure beyond."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.corrected import CorrectedClassifier
from untrojan.classifier.sites import require_sites
from untrojan.correction.moves import clean_activations, start_clip
from untrojan.correction.tuning import Lesson, Tuning
from untrojan.errors import UsageError
from untrojan.progress import Progress


class MMAC(Tuning):
    """Learns an upper bound for every channel, and changes no weight.

    Minimised is the squared difference of the bounded network's logits from the victim's on clean images, plus lambda
    times the largest margin that any input reaches for a class, summed over the classes; these inputs are kept and
    moved uphill for ``ascent`` steps before each step of the bounds. Lambda grows by ``factor`` while the accuracy on
    held-back images is at least ``share`` of the victim's, and shrinks otherwise; the bounds taken are those of the
    smallest margin that had it. The bounds lie at the output of each BatchNorm, before the ReLU, where a bound on a
    positive activation is the same; in a network without one where BNA's corrections are (``find_sites``).
    """

    name = "mmac"

    def __init__(
        self,
        *,
        steps: int = 150,
        batch_size: int = 128,
        learning_rate: float = 0.05,
        ascent: int = 2,
        ascent_rate: float = 0.05,
        starts: int = 4,
        weight: float = 0.1,
        factor: float = 1.2,
        share: float = 0.95,
    ):
        if min(steps, ascent, starts) < 1 or batch_size < 2:
            raise UsageError("mmac: steps, ascent and starts are 1 or more, and batch_size is 2 or more")
        if not min(learning_rate, ascent_rate, weight) > 0 or not factor > 1 or not 0 < share <= 1:
            raise UsageError("mmac: rates and weight are positive, factor is more than 1, and share is in (0, 1]")
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate
        self.ascent, self.ascent_rate, self.starts = ascent, ascent_rate, starts
        self.weight, self.factor, self.share = weight, factor, share

    def tune(
        self, student: Classifier, victim: Classifier, lesson: Lesson, *, generator: torch.Generator, progress: Progress
    ) -> dict[str, Tensor] | None:
        student.eval()
        for parameter in student.parameters():
            parameter.requires_grad_(False)
        sites = require_sites(student, lesson.images)
        bounded = CorrectedClassifier(student, sites=sites)
        start_clip(bounded, clean_activations(student, sites, lesson.images))
        for layer in bounded.layers.values():
            layer.low.fill_(-torch.inf)
        bounds = [layer.high.requires_grad_(True) for layer in bounded.layers.values()]
        optimiser = torch.optim.Adam(bounds, lr=self.learning_rate)
        wanted = self.share * lesson.held_accuracy(student)
        classes = victim.predict(lesson.images[:1]).shape[1]
        inputs = torch.rand(self.starts * classes, *lesson.images.shape[1:], generator=generator)
        inputs = inputs.to(lesson.images.device)
        goals = torch.arange(classes, device=inputs.device).repeat(self.starts)
        weight, best, smallest = self.weight, [b.detach().clone() for b in bounds], float("inf")
        progress.start("bounding activations", self.steps)
        for step in range(self.steps):
            inputs = self._uphill(bounded, inputs, goals)
            index = torch.randperm(len(lesson.images), generator=generator)[: self.batch_size].to(inputs.device)
            with torch.no_grad():
                answers = victim(lesson.images[index])
            margin = _margins(bounded(inputs), goals).view(self.starts, classes).amax(0)
            fit = functional.mse_loss(bounded(lesson.images[index]), answers)
            for bound, gradient in zip(
                bounds, torch.autograd.grad(fit + weight * margin.clamp_min(0).mean(), bounds), strict=True
            ):
                bound.grad = gradient
            optimiser.step()
            if step % 5 == 4 or step + 1 == self.steps:
                enough = lesson.held_accuracy(bounded) >= wanted
                if enough and float(margin.detach().mean()) < smallest:
                    smallest, best = float(margin.detach().mean()), [b.detach().clone() for b in bounds]
                weight = weight * self.factor if enough else weight / self.factor
            progress.advance()
        for bound, value in zip(bounds, best, strict=True):
            bound.requires_grad_(False).copy_(value)
        return bounded.theta()

    def _uphill(self, bounded: CorrectedClassifier, inputs: Tensor, goals: Tensor) -> Tensor:
        """The inputs after some steps towards larger margins of their classes, each of the same length, in [0, 1]."""
        for _ in range(self.ascent):
            inputs = inputs.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(_margins(bounded(inputs), goals).sum(), inputs)
            steepest = gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
            inputs = (inputs.detach() + self.ascent_rate * gradient / steepest).clamp(0, 1)
        return inputs


def _margins(logits: Tensor, goals: Tensor) -> Tensor:
    others = logits.scatter(1, goals[:, None], -torch.inf).amax(1)
    return logits.gather(1, goals[:, None]).squeeze(1) - others
