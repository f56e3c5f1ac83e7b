"""A victim beside the network that a tuning method made of it: every image gets the other network's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.corrected import CorrectedClassifier, independent, sites_of, twin
from untrojan.errors import CheckpointError, UsageError
from untrojan.guard.guard import SLACK, Decision
from untrojan.records import GuardCard
from untrojan.storage import all_finite


class Replacement(nn.Module):
    """What a tuning method returns, behind the interface of a guard.

    Its label is the repaired network's, for every image. It tells nothing of triggers: ``triggered`` is False and the
    score 0 throughout, and rates of flagged images are not measured. The victim runs beside it for ``suspect_labels``.
    """

    flags = False
    targets: Tensor

    def __init__(
        self,
        classifier: Classifier,
        targets: Sequence[int],
        weights: Mapping[str, Tensor],
        theta: Mapping[str, Tensor] | None = None,
        *,
        where: str = "guard",
    ):
        """targets: what the scan found, possibly nothing; weights: the entries of the module's ``state_dict`` that take
        the place of the victim's; theta: one row of corrections as from ``CorrectedClassifier.theta``; where: what
        error messages call it. Raises CheckpointError if these are not a network like the victim's."""
        super().__init__()
        if len(set(targets)) != len(targets) or any(target < 0 for target in targets):
            raise UsageError(f"a guard needs distinct target classes, got {list(targets)}")
        self.victim = twin(classifier, own_parameters=True)
        repaired = independent(classifier)
        state = repaired.state()
        if not set(weights) <= set(state) or any(state[n].shape != w.shape for n, w in weights.items()):
            raise CheckpointError(f"{where}: its layers are not those of this classifier")
        if not all_finite(dict(weights)):
            raise CheckpointError(f"{where}: holds NaN or infinite weights")
        # Not strict: what a module says of itself beside its tensors is not among them.
        repaired.module.load_state_dict(
            {**state, **{n: w.to(state[n].device) for n, w in weights.items()}}, strict=False
        )
        self.changed = tuple(weights)
        self.repaired: Classifier | CorrectedClassifier = repaired.requires_grad_(False)
        if theta:
            self.repaired = CorrectedClassifier(repaired, sites=sites_of(repaired, theta, where))
            self.repaired.load_theta(theta, where)
        self.register_buffer("targets", torch.tensor(list(targets), dtype=torch.int64, device=classifier.device))
        self.card: GuardCard | None = None
        self.eval()

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """Every network that an image may pass."""
        return self.victim, self.repaired

    def require_card(self) -> GuardCard:
        """The card; raises UsageError for one that was put together by hand and has none."""
        if self.card is None:
            raise UsageError("this guard has no card: make it with untrojan.repair, or set guard.card")
        return self.card

    def contents(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """``weights`` and ``theta``, as the constructor takes them."""
        inner = self.repaired.classifier if isinstance(self.repaired, CorrectedClassifier) else self.repaired
        state = inner.state()
        theta = self.repaired.theta() if isinstance(self.repaired, CorrectedClassifier) else {}
        return {name: state[name].detach() for name in self.changed}, theta

    def train(self, mode: bool = True) -> Replacement:
        """Stays in evaluation mode, as the network is deployed."""
        return super().train(False)

    def forward(self, images: Tensor) -> Decision:
        """Decide on images [N, C, H, W], uint8 or float in [0, 1], maybe none; see ``Decision``. Raises ShapeError."""
        if not (torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()):
            if len(images) == 0:
                return Decision.of_nothing(self.targets.device)
            self.victim.require_range(images, SLACK)
        with torch.no_grad():
            suspects = self.victim(images).argmax(1)
            labels = self.repaired(images).argmax(1)
            return Decision(
                labels, torch.zeros_like(labels, dtype=torch.bool), suspects, torch.zeros_like(labels).float()
            )
