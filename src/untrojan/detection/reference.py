"""The reference set: how high clean classifiers score, and what they span.

A p-value is the share of reference models that score as high (conformal, so it counts the classifier itself). To the
largest of them a tail is fitted, which is checked against the scores of networks that were left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, FiniteFloat, ValidationError

from untrojan.detection.score import Scored, hypotheses, largest, scored
from untrojan.detection.table import Network, SearchTable
from untrojan.errors import CheckpointError
from untrojan.records import Record
from untrojan.storage import read_text

Array = NDArray[np.float64]

TAIL = 0.15
"""Share of the reference scores that the tail is fitted to, a Lomax one: few enough to be the tail, and enough to tell
its scale."""
FEWEST = 20
"""Reference models that a law of their tail is made of."""


class ReferenceModel(Record):
    """A clean model of a reference set: its largest log odds; and, for whoever reads the file, what it is counted as
    and its number of classes."""

    family: str
    classes: int = Field(ge=2)
    log_odds: FiniteFloat


class Reference(Record):
    """A reference set, as it lies in a file.

    weights: by scope and feature (``features``); limits: the most, or of skill the least, that a model of it has
    (``SAID``); models: the clean ones that a classifier is compared with.
    """

    schema_: Literal["untrojan-reference-1"] = Field("untrojan-reference-1", alias="schema")
    weights: dict[str, dict[str, FiniteFloat]]
    limits: dict[str, FiniteFloat]
    models: tuple[ReferenceModel, ...]

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    def p_value(self, log_odds: float) -> float:
        """How often the likeliest hypothesis about a clean model has as large log odds: float in (0, 1]."""
        return tail_p_value([one.log_odds for one in self.models], log_odds)

    def scored(self, table: SearchTable) -> dict[str, list[Scored]]:
        """The hypotheses about a classifier, by scope, the likeliest first."""
        return scored(hypotheses(table), self.weights)

    def outside(self, network: Network) -> tuple[str, ...]:
        """What no model is like, in words."""
        found = []
        for name, value in spanned(network).items():
            limit = self.limits.get(name)
            if limit is not None and (value < limit if name == LEAST else value > limit):
                found.append(SAID[name].format(limit=f"{limit:.3g}", value=f"{value:.3g}"))
        return tuple(found)

    def extended(self, tables: Sequence[SearchTable], family: str) -> Reference:
        """The same with more clean models, of which these are the search tables; family: what they are counted as."""
        numbers = [spanned(table.network) for table in tables]
        found = [(table.network.classes, largest(self.scored(table))) for table in tables]
        more = [ReferenceModel(family=family, classes=k, log_odds=v) for k, v in found if v is not None]
        limits = {
            name: (min if name == LEAST else max)([*own, *(one[name] for one in numbers)])
            for name in SAID
            for own in [[self.limits[name]] if name in self.limits else []]
        }
        return Reference(weights=self.weights, limits=limits, models=(*self.models, *more))


LEAST = "skill"
SAID = {
    "classes": "no reference model has more than {limit} classes, and this one has {value}",
    "side": "no reference model takes images of more than {limit} pixels a side, and this one takes {value}",
    "skill": "no reference model gets less than {limit} of what guessing leaves right, and this one gets {value}",
    "unknown": "no reference model gets less than a fifth of the images right of more than {limit} of its classes, and "
    "this one of {value}",
}
"""What a reference set spans, and what is said of a classifier beyond it."""
UNKNOWN = 0.05
"""Share of its classes that a reference model may hardly know: none of fewer than twenty. Clean networks that do not
know all of theirs score as high as attacked ones."""
HARDLY = 0.2
"""Share of right answers below which a classifier hardly knows a class; of fewer than five classes, as many as guessing
gives. Networks that know some of their classes only answer these too often, and are moved to them by triggers as small
as an attacker's."""


def spanned(network: Network) -> dict[str, float]:
    """The numbers of a network that a reference set spans or does not."""
    guessing = 1 / network.classes
    counts = np.array(network.confusion, dtype=np.float64).reshape(network.classes, network.classes)
    shown = counts.sum(1) > 0
    right = np.diag(counts)[shown] / counts.sum(1)[shown]
    return {
        "classes": float(network.classes),
        "side": float(max(network.input_shape[1:])),
        "skill": (network.accuracy - guessing) / (1 - guessing),
        "unknown": float((right < max(HARDLY, guessing)).mean()) if right.size else 1.0,
    }


def tail_p_value(clean: Sequence[float], value: float) -> float:
    """How often a clean model has as large a value: float in (0, 1].

    clean: the values of the reference models. Below the tail the share of them, this one counted, that are as large; in
    it a Lomax law of how far values lie above its beginning.

    >>> tail_p_value([1.0] * 99, 0.5), tail_p_value([float(i) for i in range(99)], 49.0)
    (1.0, 0.51)
    """
    values = np.sort(np.asarray(clean, dtype=np.float64))[::-1]
    plain = (1 + int((values >= value).sum())) / (values.size + 1)
    # The tail is the largest values, as many as its share of all.
    inside = int(TAIL * values.size) + 1
    if values.size < FEWEST or value <= values[inside]:
        return plain
    start = values[inside]
    scale = max(float((values[:inside] - start).mean()), 1e-9)
    # Of a scale that is known from so many values only, the tail is a Lomax one: heavier than the exponential.
    many = TAIL * values.size
    beginning = (1 + inside) / (values.size + 1)
    return float(min(max(beginning * (1 + (value - start) / scale / many) ** -many, 1e-300), 1.0))


def read_reference(path: str | Path) -> Reference:
    """A reference set from a file; raises CheckpointError for what is none."""
    try:
        return Reference.model_validate_json(read_text(path))
    except (ValueError, ValidationError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: not a reference set ({' '.join(str(error).split())[:120]}); untrojan calibrate writes one"
        ) from None


@lru_cache(maxsize=1)
def built_in() -> Reference:
    """The reference set that comes with this package."""
    text = files("untrojan").joinpath("detection", "reference.json").read_text(encoding="utf-8")
    return Reference.model_validate_json(text)
