"""The methods that can be measured, by name. A new kind of method is a class here and a line in ``method_for``.

Those of ``CORRECTIONS`` and ``TUNINGS`` in ``untrojan.correction`` need no line.
"""

from __future__ import annotations

import dataclasses
import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from untrojan.bench.plan import MethodSpec
from untrojan.classifier import Classifier
from untrojan.correction import BNA, CORRECTIONS, TUNINGS
from untrojan.detection.surrogates import SurrogateSettings
from untrojan.errors import DataError, UsageError
from untrojan.guard import MARGIN_SHARE, AnyGuard, Guard, Replacement, Strip
from untrojan.guard.strip import check_settings
from untrojan.keywords import checked
from untrojan.pipeline import prepare, repair, settings_of, tune
from untrojan.records import Cost, ScanReport
from untrojan.stand_ins import StandIns

ALONE = "-alone"
"""After the name of a correction: without the inference rule."""

Shield = AnyGuard | Strip
"""What ``evaluate`` can measure."""


@dataclass(frozen=True)
class Given:
    """What a method gets: a victim, clean images uint8 [N, C, H, W] with labels int64 [N], and the scan's report, None
    for a method that needs no verdict. The true trigger is not among it. stand_ins: what corrections have made of
    exactly this so far, by its settings, which others take over."""

    classifier: Classifier
    images: Tensor
    labels: Tensor
    report: ScanReport | None
    seed: int
    stand_ins: dict[SurrogateSettings, StandIns] = field(default_factory=dict)


class Method(ABC):
    """A method with its options, checked."""

    @property
    def needs_scan(self) -> bool:
        """Whether it is given a report that found a backdoor."""
        return False

    @abstractmethod
    def resolved(self) -> dict[str, Any]:
        """Everything that it does depends on, its defaults included, in plain values."""

    @abstractmethod
    def guard(self, given: Given) -> tuple[Shield | None, Cost | None]:
        """The victim made safe, None for the victim alone; and what that cost."""


class Alone(Method):
    """The victim as it is."""

    def resolved(self) -> dict[str, Any]:
        return {}

    def guard(self, given: Given) -> tuple[Shield | None, Cost | None]:
        return None, None


@dataclass(frozen=True)
class Stripped(Method):
    """The victim behind STRIP."""

    options: dict[str, Any]

    def resolved(self) -> dict[str, Any]:
        return defaults(Strip.__init__) | self.options

    def guard(self, given: Given) -> tuple[Shield | None, Cost | None]:
        started = time.perf_counter()
        made = Strip(given.classifier, given.images, seed=given.seed, **self.options)
        # It passes the images through a copy of the victim that does not exist before: counted by what they must be.
        passed = len(made.overlays) * len(made.entropies)
        return made, Cost(seconds=time.perf_counter() - started, images_forward=passed, images_forward_backward=0)


@dataclass(frozen=True)
class Corrected(Method):
    """A correction of ``CORRECTIONS`` through ``untrojan.pipeline.repair``."""

    name: str
    options: dict[str, Any]
    surrogates: SurrogateSettings
    margin_share: float

    @property
    def needs_scan(self) -> bool:
        return True

    def resolved(self) -> dict[str, Any]:
        correction = CORRECTIONS[self.name](**self.options)
        return {
            "correction": vars(correction),
            "surrogates": self.surrogates.as_dict(),
            "margin_share": self.margin_share,
        }

    def guard(self, given: Given) -> tuple[Shield | None, Cost | None]:
        if given.report is None:
            raise UsageError(f"{self.name} needs a scan")
        of = (given.classifier, given.images, given.labels, given.report)
        if self.surrogates not in given.stand_ins:
            given.stand_ins[self.surrogates] = prepare(*of, seed=given.seed, settings=self.surrogates)
        made = repair(
            *of,
            seed=given.seed,
            settings=self.surrogates,
            method=self.name,
            options=self.options,
            margin_share=self.margin_share,
            stand_ins=given.stand_ins[self.surrogates],
        )
        return made, made.require_card().cost


@dataclass(frozen=True)
class WithoutRule(Corrected):
    """The same correction without the inference rule: the corrected network answers for every image (the paper's
    Challenge 1). Only where there is one target, and so one corrected network."""

    def resolved(self) -> dict[str, Any]:
        return super().resolved() | {"rule": "none"}

    def guard(self, given: Given) -> tuple[Shield | None, Cost | None]:
        made, cost = super().guard(given)
        if not isinstance(made, Guard) or len(made.targets) != 1:
            raise DataError(f"{self.name}{ALONE} is for one target class, and the scan found several")
        theta = made.corrected.theta()
        return Replacement(given.classifier, made.targets.tolist(), {}, theta), cost


@dataclass(frozen=True)
class Tuned(Method):
    """A tuning method of ``TUNINGS`` through ``untrojan.pipeline.tune``; only one that unlearns the scan's trigger
    needs its verdict."""

    name: str
    options: dict[str, Any]

    @property
    def needs_scan(self) -> bool:
        return TUNINGS[self.name].needs_trigger

    def resolved(self) -> dict[str, Any]:
        return {"tuning": settings_of(TUNINGS[self.name](**self.options))}

    def guard(self, given: Given) -> tuple[Shield | None, Cost | None]:
        made = tune(
            given.classifier,
            given.images,
            given.labels,
            method=self.name,
            options=self.options,
            report=given.report,
            seed=given.seed,
        )
        return made, made.require_card().cost


def method_names() -> tuple[str, ...]:
    """Every name that ``method_for`` takes."""
    return ("none", "strip", *CORRECTIONS, *(f"{name}{ALONE}" for name in CORRECTIONS), *TUNINGS)


def method_for(spec: MethodSpec) -> Method:
    """The method that a plan names, with its options checked; raises UsageError."""
    if spec.name.removesuffix(ALONE) in CORRECTIONS:
        return _corrected(spec)
    if spec.name not in method_names():
        raise UsageError(f"method '{spec.name}' is not one of {', '.join(method_names())}")
    if spec.recipe != "untrojan" or spec.surrogates or spec.margin_share is not None:
        raise UsageError(f"method {spec.name} takes no recipe, surrogates or margin_share")
    if spec.name == "strip":
        asked = checked(Strip.__init__, spec.options, "method strip", without=("classifier", "images", "seed"))
        check_settings(**asked)
        return Stripped(asked)
    if spec.name in TUNINGS:
        tuned = Tuned(spec.name, checked(TUNINGS[spec.name].__init__, spec.options, f"method {spec.name}"))
        tuned.resolved()  # raises what is wrong with the values
        return tuned
    checked(Alone.__init__, spec.options, f"method {spec.name}", without=("args", "kwargs"))
    return Alone()


def _corrected(spec: MethodSpec) -> Corrected:
    name = spec.name.removesuffix(ALONE)
    kind, where, paper = CORRECTIONS[name], f"method {spec.name}", spec.recipe == "paper"
    if paper and kind is not BNA:
        raise UsageError(f"{where} has no recipe 'paper'; leave it out")
    options = checked(kind.__init__, spec.options, where)
    surrogates = checked(SurrogateSettings, spec.surrogates, f"{where}, surrogates", without=("budget",))
    margin = spec.margin_share if spec.margin_share is not None else 0.0 if paper else MARGIN_SHARE
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin < 1:
        raise UsageError(f"{where}: margin_share is from 0 to less than 1, got {margin!r}")
    made = (Corrected if name == spec.name else WithoutRule)(
        name=name,
        options={**(BNA.paper() if paper else {}), **options},
        surrogates=dataclasses.replace(SurrogateSettings.paper() if paper else SurrogateSettings(), **surrogates),
        margin_share=float(margin),
    )
    made.resolved()  # raises what is wrong with the values
    return made


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The default values of keyword arguments, but not of the seed, which is the cell's own."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty and p.name != "seed"}
