"""Frozen, versioned results. What was not measured is None, never zero.

The JSON forms are the tool's public formats: other programs read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PrivateAttr
from torch import Tensor

from untrojan.storage import tensors_sha256
from untrojan.triggers import Trigger


class Record(BaseModel):
    """Base of all records: immutable; unknown fields are refused when one is read from a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Cost(Record):
    """What was spent, counted by hooks at the classifier: every pass, whoever asked for it."""

    seconds: float
    images_forward: int
    images_forward_backward: int


class PairScore(Record):
    """One inverted trigger: ``size``, its kind's norm, and ``score``, its anomaly; None if nothing flips the pair."""

    source: int
    target: int
    kind: str
    size: float | None
    score: float | None
    detected: bool


class Evidence(Record):
    """One hypothesis about an attack, and what speaks for it.

    scope: "target-wise", one trigger from all classes into ``target``; "pair-wise", from ``source`` to ``target``;
    "untargeted", from all classes to one other each. kinds: of trigger that show it, the clearest first; size: of the
    smallest trigger of that kind, in its norm; ratio: how many times smaller than this classifier's others of the scope
    (of untargeted ones, than those into one class). log_odds: by how much likelier it is an attack's than not among the
    reference models; p_value: how often the likeliest hypothesis about a clean reference model is as likely.
    off_subspace: share of the activation shift outside the span of the class means, from 0 to 1, where it could be
    measured; it is compared within the classifier alone.
    """

    scope: Literal["target-wise", "pair-wise", "untargeted"]
    kinds: tuple[str, ...]
    source: int | None = None
    target: int | None = None
    size: float
    ratio: float
    log_odds: float
    p_value: float
    off_subspace: float | None = None

    @property
    def kind(self) -> str:
        """The clearest kind."""
        return self.kinds[0]

    @property
    def kinds_in_words(self) -> str:
        """All kinds, such as "patch and additive"."""
        return " and ".join([", ".join(self.kinds[:-1]), self.kinds[-1]] if len(self.kinds) > 1 else self.kinds)


class VictimInfo(Record):
    """Which classifier a result is about. ``sha256`` is over its tensors and preprocessing, not over a file."""

    sha256: str
    classes: int
    class_names: tuple[str, ...] | None = None
    input_shape: tuple[int, int, int]
    model: str | None = None
    weights: str | None = None


class ScanReport(Record):
    """The answer of a scan: ``verdict``, and what it rests on.

    p_value: how often a clean reference model scores as high as this classifier; score: the log odds of the likeliest
    hypothesis. evidence: the named hypotheses first; unreached: what the time allowed did not suffice for; accuracy: of
    the classifier on the clean images, from 0 to 1, None if nothing was searched; tensors_sha256: of the triggers,
    which are in a file beside it.

    Not part of the JSON: ``triggers`` holds, per detected (target, kind), the trigger re-estimated on all its detected
    sources; ``table`` what the searches found, raw, which lies beside it as search.parquet.
    """

    schema_: Literal["untrojan-scan-2"] = Field("untrojan-scan-2", alias="schema")
    verdict: Literal["backdoor", "clean", "inconclusive"]
    p_value: float | None = None
    score: float | None = None
    accuracy: float | None = None
    reason: str
    targets: tuple[int, ...]
    pairs: tuple[PairScore, ...]
    evidence: tuple[Evidence, ...] = ()
    unreached: tuple[str, ...] = ()
    cost: Cost
    victim: VictimInfo
    images: int
    seed: int
    settings: dict[str, Any]
    version: str
    tensors_sha256: str | None = None

    _triggers: dict[tuple[int, str], Trigger] = PrivateAttr(default_factory=dict)
    _table: Any = PrivateAttr(default=None)

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    @property
    def triggers(self) -> Mapping[tuple[int, str], Trigger]:
        """Re-estimated triggers by (target class, kind)."""
        return self._triggers

    @property
    def table(self) -> Any:
        """The search table (``detection.table.SearchTable``); None if nothing was searched, or it was not read."""
        return self._table

    def with_triggers(self, triggers: Mapping[tuple[int, str], Trigger], table: Any = None) -> ScanReport:
        """The same report, carrying these triggers, whose hash it says, and a search table."""
        copy = self.model_copy()
        copy._triggers, copy._table = dict(triggers), table
        return copy.model_copy(update={"tensors_sha256": tensors_sha256(copy.tensors()) if triggers else None})

    def tensors(self) -> dict[str, Tensor]:
        """The triggers' tensors, each by ``TARGET/KIND/TENSOR``."""
        return {
            f"{target}/{kind}/{name}": tensor
            for (target, kind), trigger in self.triggers.items()
            for name, tensor in trigger.tensors().items()
        }

    def sources(self, target: int) -> tuple[int, ...]:
        """The detected source classes of a target, over all kinds, ascending."""
        return tuple(sorted({p.source for p in self.pairs if p.detected and p.target == target}))


class Rate(Record):
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


class Before(Record):
    """The victim alone."""

    acc: Rate | None
    asr: Rate | None = None
    asr_floor: Rate | None = None
    sia: Rate | None = None
    sia_ceiling: Rate | None = None


class After(Record):
    """The victim behind its guard."""

    acc: Rate | None
    asr: Rate | None = None
    sia: Rate | None = None
    tpr: Rate | None = None
    tpr_of_successful: Rate | None = None
    fpr: Rate | None = None
    fpr_all: Rate | None = None


class Counts(Record):
    """How many images each rate stands on; ``left_out`` are those that the guard was made with."""

    clean: int
    triggered: int | None = None
    successful: int | None = None
    target_clean: int | None = None
    left_out: int = 0


class Evaluation(Record):
    """Rates before and after, exactly as the paper defines them."""

    schema_: Literal["untrojan-evaluation-1"] = Field("untrojan-evaluation-1", alias="schema")
    before: Before
    after: After | None
    counts: Counts
    setting: str | None = None
    victim: VictimInfo
    cost: Cost
    seed: int
    version: str

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)


class TargetCheck(Record):
    """One target's guard on what its correction never saw, over the defence images of the source classes.

    surrogates: (kind, size) of the triggers that it was fitted to; held_out: of those it is checked with. asr_before,
    asr: share of the images with a held-out trigger that the victim sends to the target, alone and behind the guard;
    sia: share that get their true class behind it; fpr: share of the target's own clean images that it flags.
    """

    surrogates: tuple[tuple[str, float], ...]
    held_out: tuple[tuple[str, float], ...] = ()
    asr_before: Rate | None = None
    asr: Rate | None = None
    sia: Rate | None = None
    fpr: Rate | None = None


class GuardCard(Record):
    """``guard.json``: which victim a guard belongs to and how it was made.

    form: "correction", which BNA makes, or "replacement", another network that answers for every image.
    answers: by target, the classes that may be an image's true one besides the target; a target that is not named may
    have any, as all of them may where ``answers`` is None. margin_share: the share of the victim's unusual margin that
    has to be left for an image to keep the target's label, 0 is the paper's rule; usual_margins: by target, the
    victim's usual margin, in logits; tensors_sha256: of what is in the file beside it.
    """

    schema_: Literal["untrojan-guard-1"] = Field("untrojan-guard-1", alias="schema")
    victim: VictimInfo
    method: str
    form: Literal["correction", "replacement"] = "correction"
    targets: tuple[int, ...]
    sources: dict[int, tuple[int, ...]]
    answers: dict[int, tuple[int, ...]] | None = None
    margin_share: FiniteFloat = Field(0.0, ge=0, lt=1)
    usual_margins: dict[int, FiniteFloat] = Field(default_factory=dict)
    settings: dict[str, Any]
    images_sha256: tuple[str, ...]
    checks: dict[int, TargetCheck] = Field(default_factory=dict)
    cost: Cost
    seed: int
    version: str
    tensors_sha256: str | None = None

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)
