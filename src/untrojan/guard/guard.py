"""The inference rule: f(x), unless f(x) is a detected target; then g(x | Theta of that target)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.corrected import CorrectedClassifier, sites_of, twin
from untrojan.errors import UsageError
from untrojan.records import GuardCard

MARGIN_SHARE = 0.3
"""The default share of an unusual margin that g must be left with; chosen on victims other than those reported."""


SLACK = 0.5
"""How far images may go beyond [0, 1], as interpolation makes them; what goes farther is in other units."""


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

    @classmethod
    def of_nothing(cls, device: torch.device) -> Decision:
        """Of no images, which not every network can pass."""
        none = torch.zeros(0, dtype=torch.int64, device=device)
        return cls(none, none.bool(), none, none.float())


class Guard(nn.Module):
    """A victim behind the inference rule of BNA, Sec. 4.2.

    An image is triggered when the victim sends it to a target and g disagrees; its label is then g's. Only images that
    the victim sends to a target cost a second pass, one for all targets together: each uses its own target's Theta.

    Beyond the paper, g can be asked to choose among some classes alone: where a trigger moves images of one class, as
    in all-to-all attacks, an image is of that class or of the target's, and no third answer can be right.

    Beyond the paper, too, g need not choose the target, and it is not enough if it does: the margin that is left to the
    target, its logit above the largest other one, has to reach the share ``margin_share`` of what the victim's margin
    has above the usual, that on clean images of the target. A trigger makes the victim very sure; where g, which no
    longer sees it, is left with little, the image only looks somewhat like the target. And an image of the target that
    both networks find hard is no reason for suspicion.
    """

    flags = True
    """Whether it tells which images carried the trigger."""

    targets: Tensor
    answers: Tensor | None
    margin_share: Tensor
    usual_margins: Tensor

    def __init__(
        self,
        classifier: Classifier,
        targets: Sequence[int],
        theta: Mapping[str, Tensor],
        *,
        answers: Tensor | None = None,
        margin_share: float = 0.0,
        usual_margins: Sequence[float] | None = None,
        where: str = "guard",
    ):
        """theta: as from ``CorrectedClassifier.theta``, one row per target; answers: bool [R, K], the classes that g
        chooses among, None for all; margin_share: in [0, 1), 0 is the paper's rule; usual_margins: the victim's margin
        on clean images of each target (see ``usual_margin``), None for 0; where: what error messages call it."""
        super().__init__()
        if not targets or len(set(targets)) != len(targets) or min(targets) < 0:
            raise UsageError(f"a guard needs distinct target classes, got {list(targets)}")
        if answers is not None and (answers.ndim != 2 or len(answers) != len(targets) or not answers.any(1).all()):
            raise UsageError("answers is bool [targets, classes], with at least one class for each target")
        usual = [0.0] * len(targets) if usual_margins is None else list(usual_margins)
        if not 0 <= margin_share < 1 or len(usual) != len(targets) or not all(map(math.isfinite, usual)):
            raise UsageError("margin_share is from 0 to less than 1, with one finite usual margin for each target")
        self.victim = twin(classifier, own_parameters=True)
        self.corrected = CorrectedClassifier(self.victim, len(targets), sites_of(self.victim, theta, where))
        self.corrected.load_theta(theta, where)
        self.register_buffer("targets", torch.tensor(list(targets), device=classifier.device))
        self.register_buffer("answers", None if answers is None else answers.to(classifier.device, torch.bool))
        self.register_buffer("margin_share", torch.tensor(float(margin_share), device=classifier.device))
        self.register_buffer("usual_margins", torch.tensor(usual, device=classifier.device))
        self.card: GuardCard | None = None
        self.eval()

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """Every network that an image may pass."""
        return self.victim, self.corrected

    def require_card(self) -> GuardCard:
        """The card; raises UsageError for a guard that was put together by hand and has none."""
        if self.card is None:
            raise UsageError("this guard has no card: make it with untrojan.repair, or set guard.card")
        return self.card

    def forward(self, images: Tensor) -> Decision:
        """Decide on images [N, C, H, W], uint8 or float in [0, 1], maybe none; see ``Decision``. Raises ShapeError."""
        traced = torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()
        if not traced and len(images) == 0:
            return Decision.of_nothing(self.targets.device)
        if not traced:
            self.victim.require_range(images, SLACK)
        with torch.no_grad():
            victims = self.victim(images).float()
            suspects = victims.argmax(1)
            hits = suspects[:, None] == self.targets[None, :]
            if traced:
                # A traced graph has fixed shapes: every image takes the second pass, and the rule picks.
                needed = hits.any(1)
                second, score = self._second(images, victims, hits.int().argmax(1))
                labels = torch.where(needed, second, suspects)
                score = torch.where(needed, score, torch.zeros_like(score))
            else:
                labels, score = suspects.clone(), torch.zeros(len(suspects), device=suspects.device)
                index = hits.any(1).nonzero().flatten()
                if len(index):
                    rows = hits[index].int().argmax(1)
                    labels[index], score[index] = self._second(images[index.to(images.device)], victims[index], rows)
            return Decision(labels, labels != suspects, suspects, score)

    def train(self, mode: bool = True) -> Guard:
        """Stays in evaluation mode: the rule is defined for the victim as it is deployed."""
        return super().train(False)

    def _second(self, images: Tensor, victims: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Labels and scores of images that the victim, with these logits, sends to the targets of these rows."""
        # With one target every image uses the same row, which need not be gathered for each.
        logits = self.corrected(images, rows if len(self.targets) > 1 else None).float()
        if self.answers is not None:
            logits = logits.masked_fill(~self.answers[rows], -torch.inf)
            victims = victims.masked_fill(~self.answers[rows], -torch.inf)
        target = self.targets[rows]
        unusual = margins(victims, target) - self.usual_margins[rows]
        logits = logits.scatter_add(1, target[:, None], -self.margin_share * unusual[:, None])
        left = torch.softmax(logits, 1).gather(1, target[:, None]).squeeze(1)
        return logits.argmax(1), 1 - left


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """[N]: the label's logit above the largest other one; 0 where that is no finite number. logits: [N, K]."""
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    found = logits.gather(1, labels[:, None]).squeeze(1) - others
    return found.nan_to_num(0.0, posinf=0.0, neginf=0.0)


def usual_margin(logits: Tensor, target: int, answers: Tensor | None = None) -> float:
    """The median margin of clean images of the target, of those that the victim gets right; 0 if there is none.

    logits: the victim's, [N, K]; answers: bool [K], as for ``Guard``.
    """
    right = logits[logits.argmax(1) == target].float()
    if len(right) == 0:
        return 0.0
    if answers is not None:
        right = right.masked_fill(~answers.to(right.device), -torch.inf)
    return float(margins(right, torch.full((len(right),), target, device=right.device)).median())
