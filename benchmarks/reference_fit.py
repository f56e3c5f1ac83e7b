"""Fit the score and the reference set to the committed search tables: ``python benchmarks/reference_fit.py``.

Each scope has a logistic regression: what tells an attack's class, pair or mapping from those of clean networks.
Weights are not negative, since every feature is built so that more of it speaks for an attack. A network is an example
of its own scope alone: the pair of a source-specific attack is none of a target of all classes. The reference set is
then the clean networks with these weights. The result lies in the package, as ``detection/reference.json``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reference_set import packed
from scipy.optimize import minimize

from untrojan.detection.features import Hypothesis
from untrojan.detection.reference import UNKNOWN, Reference, ReferenceModel, spanned
from untrojan.detection.score import MOST, SCOPES, hypotheses, largest, scored
from untrojan.detection.table import SearchTable
from untrojan.setting import Setting

ROOT = Path(__file__).resolve().parent.parent
INTO = ROOT / "src" / "untrojan" / "detection" / "reference.json"
LEARNT = 0.6
"""ASR from which an attacked network is an example of its attack: below it, what was planted is hardly there."""
FEWEST = 3
"""Classes of the networks that score and reference set are made of: the scan refuses two. Each of two classes has the
other alone to be compared with, and clean networks of two score as high as attacked ones."""
RIDGE = {"target-wise": 1.0, "pair-wise": 2.0, "untargeted": 1.0}
"""Weight of the squared weights, in units of one example for features of unit variance: it keeps a weight from resting
on one of few attacked networks. Of a single source there are the fewest, and traffic signs' pairs are unlike all
others': with one example's weight, clean networks of a task that was left out had the highest scores."""
FEATURES = {
    "target-wise": ("clearest lead", "joint under", "joint outside", "unlike", "drawn"),
    "pair-wise": ("joint lead", "joint outside", "joint unexpected"),
    "untargeted": ("joint under", "mapping"),
}
"""What the score of each scope is made of."""
SPARE = {
    "target-wise": ("joint lead", "blend lead", "warp lead", "joint universal", "reach"),
    "pair-wise": ("joint spares", "joint under", "joint alone", "blend lead"),
    "untargeted": ("clearest under", "joint outside", "blend under", "warp under", "classes"),
}
"""What else is computed, and tells nothing more (``features.py``)."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Examples:
    """The hypotheses of a scope about a network: values, float64 [n, features]; truth, [n], 1 for an attack's; offset:
    the log odds of each before anything is known, since an attacker chose one of them."""

    values: Array
    truth: Array
    offset: float


@dataclass(frozen=True)
class Network:
    """A network of the reference set: its card, how it was fed, and its search table."""

    card: dict[str, Any]
    fed: str
    table: SearchTable

    @property
    def clean(self) -> bool:
        return bool(self.card["attack"] == "none")

    @property
    def learnt(self) -> bool:
        return self.clean or (self.card["asr"] or 0.0) >= LEARNT

    @cached_property
    def counts(self) -> bool:
        """Whether score and reference set are made of networks like it."""
        return self.card["classes"] >= FEWEST and spanned(self.table.network)["unknown"] <= UNKNOWN

    @cached_property
    def found(self) -> dict[str, list[Hypothesis]]:
        return hypotheses(self.table)

    def truth(self, hypothesis: Hypothesis) -> bool | None:
        """Whether a hypothesis is the attack's; None if this network says nothing of hypotheses of its scope."""
        if self.clean:
            return False
        own, source, target = self.attack()
        if hypothesis.scope != own or (hypothesis.source, hypothesis.target) != (source, target):
            return None
        return True

    @cached_property
    def _examples(self) -> dict[str, Examples]:
        made = {}
        for scope, own in self.found.items():
            told = [(h, truth) for h in own if (truth := self.truth(h)) is not None]
            if told:
                values = [[h.values.get(name, 0.0) for name in FEATURES[scope] + SPARE[scope]] for h, _ in told]
                made[scope] = Examples(
                    np.clip(np.array(values), -MOST, MOST),
                    np.array([float(truth) for _, truth in told]),
                    -math.log(len(own)),
                )
        return made

    def examples(self, scope: str) -> Examples | None:
        """What a score of this scope learns from this network, or None."""
        return self._examples.get(scope)

    def attack(self) -> tuple[str, int | None, int | None]:
        """The scope, source and target of what was planted; the one source of two classes is all sources."""
        setting = Setting.parse(self.card["setting"])
        if setting.kind == "a2a":
            return "untargeted", None, None
        if setting.kind == "a2o" or self.card["classes"] == 2:
            return "target-wise", None, setting.target
        return "pair-wise", setting.source, setting.target


def networks(reporting: bool = False) -> list[Network]:
    """All that is packed, but for what is only ever judged; or these, the zoo's reporting half, alone."""
    cards, tables = packed()
    return [
        Network(card, scan["fed"], tables[scan["table"]])
        for card in cards
        if (card["group"] == "zoo-reporting") == reporting
        for scan in card["scans"]
        if scan["table"] is not None
    ]


def weights_of(chosen: Sequence[Network]) -> dict[str, dict[str, float]]:
    """The weights of every scope, from networks that were fed right."""
    return {scope: regression(scope, chosen, FEATURES[scope]) for scope in SCOPES}


def regression(scope: str, chosen: Sequence[Network], features: Sequence[str]) -> dict[str, float]:
    """The weights of a scope's features, from networks that were fed right."""
    fitted = [n for n in chosen if n.fed == "right" and n.learnt and n.counts]
    examples = [one for n in fitted if (one := n.examples(scope)) is not None]
    columns = [(FEATURES[scope] + SPARE[scope]).index(name) for name in features]
    values = np.concatenate([one.values[:, columns] for one in examples])
    scale = values.std(0) + 1e-9
    weights, intercept = _logistic(
        values / scale,
        np.concatenate([one.truth for one in examples]),
        np.concatenate([np.full(len(one.truth), one.offset) for one in examples]),
        RIDGE[scope],
    )
    return {name: round(float(w / s), 4) for name, w, s in zip(features, weights, scale, strict=True) if w > 1e-6} | {
        "intercept": round(intercept, 4)
    }


def _logistic(values: Array, truth: Array, offset: Array, ridge: float) -> tuple[Array, float]:
    def loss(parameters: Array) -> tuple[float, Array]:
        z = values @ parameters[:-1] + parameters[-1] + offset
        likelihood = np.logaddexp(0, z) - truth * z
        slope = 1 / (1 + np.exp(-z)) - truth
        weights = parameters[:-1]
        return (
            float(likelihood.sum() + ridge * np.square(weights).sum() / 2),
            np.append(values.T @ slope + ridge * weights, slope.sum()),
        )

    bounds = [(0.0, None)] * values.shape[1] + [(None, None)]
    best = minimize(loss, np.zeros(values.shape[1] + 1), jac=True, bounds=bounds, method="L-BFGS-B").x
    return best[:-1], float(best[-1])


def reference_of(chosen: Sequence[Network]) -> Reference:
    """The score of these networks, and the reference set of the clean ones among them.

    What a clean model scores is by weights that were fitted without its family: by those that have seen it, clean
    models would seem more usual than a stranger does.
    """
    weights = weights_of(chosen)
    clean = [n for n in chosen if n.clean and n.fed == "right" and n.counts]
    models = []
    for family in sorted({n.card["family"] for n in clean}):
        blind = weights_of([n for n in chosen if n.card["family"] != family])
        for network in clean:
            found = largest(scored(network.found, blind)) if network.card["family"] == family else None
            if found is not None:
                classes = network.card["classes"]
                models.append(ReferenceModel(family=family, classes=classes, log_odds=round(found, 4)))
    limits = Reference(weights=weights, limits={}, models=()).extended([n.table for n in clean], "").limits
    return Reference(weights=weights, limits=limits, models=tuple(models))


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, and write the reference file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=INTO)
    options = parser.parse_args(arguments)
    reference = reference_of(networks())
    options.out.write_text(reference.model_dump_json(indent=1) + "\n")
    print(json.dumps(reference.weights, indent=1))
    print(f"{len(reference.models)} clean networks of {len({one.family for one in reference.models})} families")


if __name__ == "__main__":
    main()
