"""What each feature of the score is worth: ``python benchmarks/features.py --page``.

The score of a scope is fitted without one of its features, and with one that it does not have, for each family of
architectures from all others. Then the networks of the family are scored. So a figure says what a feature is worth on
kinds of network that nothing was tuned on. All of it is from the committed search tables, in a minute or so. ``--page``
puts the table into docs/detection.md.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from left_out import MEASURES, PAGE, WORKS
from page import put
from record import write_record
from reference_fit import FEATURES, SPARE, Network, networks, regression

from untrojan.detection.features import JOINT, by_target, lead
from untrojan.detection.score import SCOPES, scored

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "benchmarks" / "records" / "features.json"
BEGIN, END = "<!-- features: benchmarks/features.py -->", "<!-- end of features -->"
RARE = 0.02
"""Share of the clean networks that may score as high as an attacked one that counts as told from them."""
DRAWS = 40
"""Subsets of a network's classes that chance leads are of."""


def compared(chosen: Sequence[Network]) -> list[dict[str, Any]]:
    """One row for each scope, one for each feature that is left out of it, and one for each that is added."""
    right = [n for n in chosen if n.fed == "right" and n.counts]
    rows = []
    for scope in SCOPES:
        own = FEATURES[scope]
        rows.append({"scope": scope, "features": "as it is"} | told(right, scope, own))
        rows += [
            {"scope": scope, "features": f"without {name}"} | told(right, scope, [n for n in own if n != name])
            for name in own
        ]
        rows += [
            {"scope": scope, "features": f"and {name}"} | told(right, scope, [*own, name]) for name in SPARE[scope]
        ]
    return rows


def told(chosen: Sequence[Network], scope: str, features: Sequence[str]) -> dict[str, Any]:
    """How well the largest log odds of a scope tell attacked networks of that scope from clean ones.

    area: how often an attacked one scores above a clean one (the area under the ROC curve); found: how many score above
    all but ``RARE`` of the clean ones.
    """
    clean, attacked = [], []
    for family in sorted({n.card["family"] for n in chosen}):
        weights = {scope: regression(scope, [n for n in chosen if n.card["family"] != family], features)}
        for network in chosen:
            if network.card["family"] == family and (own := scored(network.found, weights).get(scope)):
                if network.clean:
                    clean.append(own[0].log_odds)
                elif network.attack()[0] == scope and (network.card["asr"] or 0) >= WORKS:
                    attacked.append(own[0].log_odds)
    usual = np.array(clean)
    above = [float((usual < value).mean() + (usual == value).mean() / 2) for value in attacked]
    return {
        "clean": len(clean),
        "attacked": len(attacked),
        "area": round(float(np.mean(above)), 4) if above else None,
        "found": sum(float((usual >= value).mean()) <= RARE for value in attacked),
    }


def chance_leads(chosen: Sequence[Network], most: int = 8) -> list[dict[str, Any]]:
    """By how much the smallest trigger leads the next, if by chance: the level that a tenth of the leads exceed, plain
    and times the log of the number of classes. They are of subsets of the classes of clean networks of at least
    ``most``, so that nothing but the number differs."""
    lot = np.random.default_rng(0)
    known = [
        [np.array(list(by_target(network.table, kind).values())) for kind in JOINT]
        for network in chosen
        if network.clean and network.fed == "right" and network.counts and network.table.network.classes >= most
    ]
    known = [sizes for sizes in known if all(len(own) >= most and len(own) == len(sizes[0]) for own in sizes)]
    rows = []
    for count in range(3, most + 1):
        leads = []
        for sizes in known:
            for _ in range(DRAWS):
                some = lot.choice(len(sizes[0]), count, replace=False)
                by_kind = [lead(dict(enumerate(own[some].tolist()))) for own in sizes]
                leads.append(max(sum(own[n] for own in by_kind) / len(JOINT) for n in range(count)))
        level = float(np.quantile(leads, 0.9))
        rows.append({"classes": count, "lead": round(level, 3), "times_log": round(level * math.log(count), 3)})
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The figures as they stand in the docs."""
    lines = ["| scope | features | area under the curve | told from clean ones |", "|---|---|---|---|"]
    for row in rows:
        area = "–" if row["area"] is None else f"{row['area']:.3f}"
        lines.append(f"| {row['scope']} | {row['features']} | {area} | {row['found']} of {row['attacked']} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, write the record, and the table if asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RECORD)
    parser.add_argument("--page", action="store_true", help="put the table into docs/detection.md")
    options = parser.parse_args(arguments)
    chosen = networks()
    results = {"rows": compared(chosen), "rare": RARE, "chance_leads": chance_leads(chosen)}
    write_record(options.out, name=options.out.stem, script=__file__, seed=0, results=results, measures=MEASURES)
    if options.page:
        put(PAGE, BEGIN, END, table(results["rows"]))
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
