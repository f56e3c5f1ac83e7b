"""Fit the null of the scan's p-values: ``python benchmarks/calibration.py DETECTION.json --out RECORD --write``.

The largest value of each test and kind in each clean victim of ten classes of the calibration half is one observation;
a Gumbel distribution is fitted to them by maximum likelihood. ``--write`` puts the result into
``src/untrojan/detection/null.py``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from record import write_record
from scipy.stats import gumbel_r, kstest

ROOT = Path(__file__).resolve().parent.parent
NULL = ROOT / "src" / "untrojan" / "detection" / "null.py"
BEGIN, END = "NULL: dict[tuple[str, str], tuple[float, float]] = {\n", "}\n"
CLASSES = 10


def observations(victims: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """By test and kind, the largest value of each clean victim."""
    found: dict[str, list[float]] = {}
    for victim in victims:
        if victim["attack"] in (None, "none") and victim["classes"] == CLASSES:
            for key, entry in victim["values"].items():
                found.setdefault(key, []).append(entry["value"])
    return found


def fitted(values: Sequence[float]) -> dict[str, float]:
    """Location, scale, how many observations, and how well they fit (Kolmogorov-Smirnov)."""
    location, scale = gumbel_r.fit(values)
    fit = kstest(values, gumbel_r(location, scale).cdf)
    return {
        "location": round(float(location), 3),
        "scale": round(float(scale), 3),
        "victims": len(values),
        "largest": round(float(np.max(values)), 3),
        "ks_p_value": round(float(fit.pvalue), 3),
    }


def lines(null: Mapping[str, Mapping[str, float]]) -> str:
    """The entries of ``null.py``."""
    rows = []
    for key, fit in null.items():
        test, _, kind = key.partition("/")
        rows.append(f'    ("{test}", "{kind}"): ({fit["location"]}, {fit["scale"]}),\n')
    return "".join(rows)


def replaced(text: str, entries: str) -> str:
    """``null.py`` with other entries."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + entries + END + after


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, show, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("detection", type=Path, help="a record of benchmarks/detection.py, calibration half")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    results = json.loads(options.detection.read_text())["results"]
    if results["half"] != "calibration":
        raise SystemExit(f"{options.detection}: of the {results['half']} half; a null is fitted on the other one")
    null = {key: fitted(values) for key, values in sorted(observations(results["victims"]).items())}
    print(lines(null), end="")
    if options.write:
        NULL.write_text(replaced(NULL.read_text(), lines(null)))
    if options.out:
        write_record(options.out, name=options.out.stem, script=__file__, seed=0, results={"null": null})


if __name__ == "__main__":
    main()
