"""The inference rule: f(x), unless f(x) is a detected target; then g(x | Theta of that target)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.corrected import CorrectedClassifier, twin
from untrojan.errors import UsageError
from untrojan.records import GuardCard


class Decision(NamedTuple):
    """What the guard says of N images.

    labels: int64 [N], the class to use; triggered: bool [N], whether the image carried the trigger; suspect_labels:
    int64 [N], what the victim alone says; score: float32 [N] in [0, 1], how little of g's probability is left to the
    victim's label (0 where the victim's label is no target).
    """

    labels: Tensor
    triggered: Tensor
    suspect_labels: Tensor
    score: Tensor


class Guard(nn.Module):
    """A victim behind the inference rule of BNA, Sec. 4.2.

    An image is triggered when the victim sends it to a target and g disagrees; its label is then g's. Only images that
    the victim sends to a target cost a second pass, one for all targets together: each uses its own target's Theta.

    Beyond the paper, g can be asked to choose among some classes alone: where a trigger moves images of one class, as
    in all-to-all attacks, an image is of that class or of the target's, and no third answer can be right.
    """

    targets: Tensor
    answers: Tensor | None

    def __init__(
        self,
        classifier: Classifier,
        targets: Sequence[int],
        theta: Mapping[str, Tensor],
        *,
        answers: Tensor | None = None,
        where: str = "guard",
    ):
        """theta: as from ``CorrectedClassifier.theta``, one row per target; answers: bool [R, K], the classes that g
        chooses among, None for all; where: what error messages call it."""
        super().__init__()
        if not targets or len(set(targets)) != len(targets) or min(targets) < 0:
            raise UsageError(f"a guard needs distinct target classes, got {list(targets)}")
        if answers is not None and (answers.ndim != 2 or len(answers) != len(targets) or not answers.any(1).all()):
            raise UsageError("answers is bool [targets, classes], with at least one class for each target")
        self.victim = twin(classifier, own_parameters=True)
        self.corrected = CorrectedClassifier(self.victim, len(targets))
        self.corrected.load_theta(theta, where)
        self.register_buffer("targets", torch.tensor(list(targets), device=classifier.device))
        self.register_buffer("answers", None if answers is None else answers.to(classifier.device, torch.bool))
        self.card: GuardCard | None = None
        self.eval()

    def require_card(self) -> GuardCard:
        """The card; raises UsageError for a guard that was put together by hand and has none."""
        if self.card is None:
            raise UsageError("this guard has no card: make it with untrojan.repair, or set guard.card")
        return self.card

    def forward(self, images: Tensor) -> Decision:
        """Decide on images [N, C, H, W], uint8 or float in [0, 1]; see ``Decision``."""
        with torch.no_grad():
            suspects = self.victim(images).argmax(1)
            hits = suspects[:, None] == self.targets[None, :]
            if torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export():
                # A traced graph has fixed shapes: every image takes the second pass, and the rule picks.
                needed = hits.any(1)
                second, score = self._second(images, suspects, hits.int().argmax(1))
                labels = torch.where(needed, second, suspects)
                score = torch.where(needed, score, torch.zeros_like(score))
            else:
                labels, score = suspects.clone(), torch.zeros(len(suspects), device=suspects.device)
                index = hits.any(1).nonzero().flatten()
                if len(index):
                    rows = hits[index].int().argmax(1)
                    labels[index], score[index] = self._second(images[index.to(images.device)], suspects[index], rows)
            return Decision(labels, labels != suspects, suspects, score)

    def train(self, mode: bool = True) -> Guard:
        """Stays in evaluation mode: the rule is defined for the victim as it is deployed."""
        return super().train(False)

    def _second(self, images: Tensor, suspects: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.corrected(images, rows).float()
        if self.answers is not None:
            logits = logits.masked_fill(~self.answers[rows], -torch.inf)
        left = torch.softmax(logits, 1).gather(1, suspects[:, None]).squeeze(1)
        return logits.argmax(1), 1 - left
