"""The search for the smallest trigger that sends images to a class, for many problems at once.

Each problem (images, target class) has its own trigger, its own Adam state, its own adaptive cost, its own best so far
and its own early stop. Problems share every pass through the network: a batch holds ``slots`` of them, and a finished
one leaves it to the next.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.gradients import input_gradient
from untrojan.detection.family import TriggerFamily
from untrojan.progress import Progress, Silent
from untrojan.triggers import Trigger


@dataclass(frozen=True)
class Problem:
    """Send ``images`` (float [N, C, H, W] in [0, 1]) to class ``target``, or each to its own (int64 [N]).

    labels: int64 [N], the images' own classes; then the goal is any other class, and ``target`` is not used.
    allowance: a size up to which being small does not matter; the search then looks for the most convincing trigger of
    that size instead of the smallest one. start: a trigger to begin with, instead of a random one.
    """

    images: Tensor
    target: int | Tensor
    allowance: float = 0.0
    start: Trigger | None = None
    labels: Tensor | None = None


@dataclass(frozen=True)
class Inversion:
    """The smallest trigger found that reached the success level; ``trigger`` is None if none did."""

    trigger: Trigger | None
    size: float | None
    success: float
    steps: int


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long to search. ``images`` of a problem are drawn per step; ``patience`` steps without a smaller trigger
    (by ``improvement``, a share) end it; ``level`` is the success rate that counts as success. For a short search
    ``pace`` multiplies the family's learning rate and, as a power, how fast size gets dearer, and ``cost`` multiplies
    what it costs at first: it then ends near the smallest trigger, if less exactly."""

    steps: int
    images: int
    level: float = 0.99
    patience: int = 25
    improvement: float = 0.02
    batch: int = 256
    pace: float = 1.0
    cost: float = 1.0


class OutOfTimeError(Exception):
    """A search was given up at its end time. Never leaves this package."""


def invert(
    classifier: Classifier,
    family: TriggerFamily,
    problems: Sequence[Problem],
    budget: Budget,
    *,
    generator: torch.Generator,
    progress: Progress | None = None,
    ends: float | None = None,
) -> list[Inversion]:
    """Invert one trigger per problem; results in the order of the problems.

    ends: the reading of ``time.monotonic`` at which to raise OutOfTimeError, with nothing to show.

    The classifier must be in evaluation mode with frozen parameters (``classifier.as_found``). ``generator`` is a CPU
    generator: starts and image draws do not depend on the device.
    """
    progress = progress or Silent()
    results: list[Inversion | None] = [None] * len(problems)
    waiting = list(range(len(problems)))[::-1]
    slots = max(1, min(len(problems), budget.batch // budget.images))
    batch = _Batch(classifier, family, budget, generator)
    while waiting or batch.size:
        if ends is not None and time.monotonic() >= ends:
            raise OutOfTimeError
        while waiting and batch.size < slots:
            take = [waiting.pop() for _ in range(min(len(waiting), slots - batch.size))]
            batch.add(take, [problems[i] for i in take])
        batch.step()
        for index, inversion in batch.leave():
            results[index] = inversion
            progress.advance(1)
    return [r for r in results if r is not None]


class _Batch:
    """The problems that are being worked on, row by row."""

    def __init__(self, classifier: Classifier, family: TriggerFamily, budget: Budget, generator: torch.Generator):
        self.classifier, self.family, self.budget, self.generator = classifier, family, budget, generator
        self.problems: list[Problem] = []
        self.indices: list[int] = []
        self.rows: dict[str, Tensor] = {}
        self.parameters: list[Tensor] = []
        self.moments: list[tuple[Tensor, Tensor]] = []
        self.best: list[Tensor] = []

    @property
    def size(self) -> int:
        return len(self.indices)

    def add(self, indices: Sequence[int], problems: Sequence[Problem]) -> None:
        device, count = self.classifier.device, len(indices)
        shape = problems[0].images.shape[1:]
        fresh = self.family.start(count, (shape[0], shape[1], shape[2]), self.generator)
        for row, problem in enumerate(problems):
            if problem.start is not None:
                for tensor, value in zip(fresh, self.family.parameters(problem.start), strict=True):
                    tensor[row] = value
        fresh = [t.to(device) for t in fresh]
        rows = {
            "away": torch.tensor([p.labels is not None for p in problems], device=device),
            "cost": torch.full((count,), self.family.initial_cost * self.budget.cost, device=device),
            "allowance": torch.tensor([p.allowance for p in problems], device=device),
            "age": torch.zeros(count, device=device),
            "stride": torch.ones(count, device=device),
            "since": torch.zeros(count, device=device),
            "least": torch.full((count,), torch.inf, device=device),
            "mark": torch.full((count,), torch.inf, device=device),
            "success": torch.zeros(count, device=device),
        }
        if self.size:
            self.rows = {k: torch.cat([self.rows[k], v]) for k, v in rows.items()}
            self.parameters = [torch.cat([a, b]) for a, b in zip(self.parameters, fresh, strict=True)]
            self.best = [torch.cat([a, b]) for a, b in zip(self.best, fresh, strict=True)]
            self.moments = [
                (torch.cat([m, torch.zeros_like(f)]), torch.cat([v, torch.zeros_like(f)]))
                for (m, v), f in zip(self.moments, fresh, strict=True)
            ]
        else:
            self.rows, self.parameters, self.best = rows, fresh, [f.clone() for f in fresh]
            self.moments = [(torch.zeros_like(f), torch.zeros_like(f)) for f in fresh]
        self.indices += indices
        self.problems += problems

    def step(self) -> None:
        rows = self.rows
        draws = [self._draw(problem) for problem in self.problems]
        images, aims = torch.stack([d[0] for d in draws]), torch.cat([d[1] for d in draws])
        count, drawn = images.shape[:2]
        leaves = [p.requires_grad_(True) for p in self.parameters]
        stamped = self.classifier.arranged(self.family.stamp(leaves, images).flatten(0, 1))
        away = rows["away"].repeat_interleave(drawn)

        def missed(logits: Tensor, some: slice) -> Tensor:
            toward = functional.cross_entropy(logits, aims[some], reduction="none")
            return torch.where(away[some], _escape(logits, aims[some]), toward) if bool(away[some].any()) else toward

        logits, losses, pull = input_gradient(self.classifier, stamped, missed, scale=drawn)
        loss = losses.view(count, drawn).mean(1)
        size = self.family.size(leaves)
        dear = (rows["cost"] * (size - rows["allowance"]).clamp_min(0)).sum()
        gradients = torch.autograd.grad([stamped, dear], leaves, [pull, torch.ones_like(dear)])
        self.parameters = [p.detach() for p in leaves]
        reached = logits.argmax(1) == aims
        success = (reached ^ away).view(count, drawn).float().mean(1)
        # Between two triggers within the allowance the more convincing one is better.
        self._remember(success, torch.maximum(size.detach(), rows["allowance"]) * (1 + 1e-3 * loss))
        self._adapt_cost(success)
        self._adam(gradients)

    def _draw(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """Images of a step, and what each is to become, or to leave."""
        count, wanted = len(problem.images), self.budget.images
        if count <= wanted:
            index = torch.arange(count).repeat(-(-wanted // count))[:wanted]
        else:
            index = torch.randperm(count, generator=self.generator)[:wanted]
        images = problem.images[index]
        if problem.labels is not None:
            return images, problem.labels[index]
        if isinstance(problem.target, Tensor):
            return images, problem.target[index]
        return images, torch.full((wanted,), problem.target, device=images.device)

    def _remember(self, success: Tensor, badness: Tensor) -> None:
        rows = self.rows
        better = (success >= self.budget.level) & (badness < rows["least"])
        for best, now in zip(self.best, self.parameters, strict=True):
            best[better] = now[better]
        rows["least"] = torch.where(better, badness, rows["least"])
        rows["success"] = torch.where(better, success, torch.where(rows["least"].isinf(), success, rows["success"]))
        clearly = rows["least"] < rows["mark"] * (1 - self.budget.improvement)
        rows["mark"] = torch.where(clearly, rows["least"], rows["mark"])
        rows["since"] = torch.where(clearly | rows["least"].isinf(), 0, rows["since"] + 1)
        rows["age"] = rows["age"] + 1
        # Where nothing succeeds yet the steps grow: how far a trigger must reach differs by an order of magnitude
        # between photographs and black-and-white digits.
        stuck = rows["least"].isinf() & (rows["age"] > 10)
        rows["stride"] = torch.where(stuck, rows["stride"] * 1.08, rows["stride"])

    def _adapt_cost(self, success: Tensor) -> None:
        """Dearer while it succeeds, cheaper while it fails: the size then hovers where success begins."""
        reached = success >= self.budget.level
        dearer = self.family.raise_cost**self.budget.pace
        self.rows["cost"] = self.rows["cost"] * torch.where(reached, dearer, self.family.lower_cost)

    def _adam(self, gradients: Sequence[Tensor], beta1: float = 0.5, beta2: float = 0.9) -> None:
        """Adam with each row's own step count (Neural Cleanse's betas)."""
        age = self.rows["age"]
        for i, gradient in enumerate(gradients):
            first, second = self.moments[i]
            first.lerp_(gradient, 1 - beta1)
            second.lerp_(gradient.square(), 1 - beta2)
            shape = (-1,) + (1,) * (gradient.ndim - 1)
            mean = first / (1 - beta1**age).view(shape)
            scale = (second / (1 - beta2**age).view(shape)).sqrt_().add_(1e-8)
            step = self.budget.pace * self.family.learning_rate * self.rows["stride"].view(shape)
            self.parameters[i] = self.parameters[i] - step * mean / scale

    def _size(self, row: int) -> float:
        return float(self.family.size([best[row : row + 1] for best in self.best]))

    def leave(self) -> list[tuple[int, Inversion]]:
        """Take finished problems out of the batch."""
        rows = self.rows
        done = (rows["age"] >= self.budget.steps) | (rows["since"] >= self.budget.patience)
        if not bool(done.any()):
            return []
        finished = []
        for row in done.nonzero().flatten().tolist():
            found = bool(rows["least"][row].isfinite())
            finished.append(
                (
                    self.indices[row],
                    Inversion(
                        trigger=self.family.trigger([b[row] for b in self.best]) if found else None,
                        size=self._size(row) if found else None,
                        success=float(rows["success"][row]),
                        steps=int(rows["age"][row]),
                    ),
                )
            )
        keep = (~done).nonzero().flatten()
        self.rows = {k: v[keep] for k, v in rows.items()}
        self.parameters = [p[keep] for p in self.parameters]
        self.best = [b[keep] for b in self.best]
        self.moments = [(m[keep], v[keep]) for m, v in self.moments]
        self.indices = [self.indices[i] for i in keep.tolist()]
        self.problems = [self.problems[i] for i in keep.tolist()]
        return finished


def _escape(logits: Tensor, labels: Tensor, margin: float = 2.0) -> Tensor:
    """[N]: by how much the label's logit is not ``margin`` below the largest other one."""
    own = logits.gather(1, labels[:, None])[:, 0]
    other = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return functional.relu(own - other + margin)
