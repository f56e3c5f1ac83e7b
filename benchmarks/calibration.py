"""Fit the null of the scan's p-values: ``python benchmarks/calibration.py DETECTION.json --out RECORD --write``.

The largest value of each test and kind in each clean victim of ten classes of the calibration half is one observation;
a Gumbel distribution is fitted to them by maximum likelihood, with a scale of its own on either side of its location,
since the upper tail alone decides and the values below should not bend it. The upper scale is raised where the largest
observation would be larger than the largest of as many as all tests have together mostly is: a heavy tail must not make
false alarms. ``--write`` puts the result into ``src/untrojan/detection/null.py``.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import write_record
from scipy.optimize import minimize
from scipy.stats import gumbel_r, kstest

ROOT = Path(__file__).resolve().parent.parent
NULL = ROOT / "src" / "untrojan" / "detection" / "null.py"
BEGIN, END = "NULL: dict[tuple[str, str], tuple[float, float, float]] = {\n", "}\n"
CLASSES = 10
LAW = ("location", "above", "below")


def observations(victims: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """By test and kind, the largest value of each clean victim."""
    found: dict[str, list[float]] = {}
    for victim in victims:
        if victim["attack"] in (None, "none") and victim["classes"] == CLASSES:
            for key, entry in victim["values"].items():
                found.setdefault(key, []).append(entry["value"])
    return found


def standardised(values: Sequence[float], location: float, above: float, below: float) -> NDArray[np.float64]:
    """In units of the scale on its side."""
    apart = np.asarray(values, dtype=np.float64) - location
    return np.where(apart > 0, apart / above, apart / below)


def split_gumbel(values: Sequence[float]) -> tuple[float, float, float]:
    """Location and both scales of the most likely two-sided Gumbel distribution."""

    def loss(parameters: NDArray[np.float64]) -> float:
        location, (above, below) = parameters[0], np.exp(parameters[1:])
        z = standardised(values, location, above, below)
        scale = np.where(z > 0, above, below)
        return float(np.sum(np.log(scale) - gumbel_r.logpdf(z)))

    _, usual = gumbel_r.fit(values)
    starts = [np.array([q, math.log(usual), math.log(usual)]) for q in np.quantile(values, [0.1, 0.2, 0.3, 0.4, 0.5])]
    fits = [minimize(loss, start, method="Nelder-Mead", options={"maxiter": 4000}) for start in starts]
    best = min(fits, key=lambda fit: fit.fun).x
    return float(best[0]), float(np.exp(best[1])), float(np.exp(best[2]))


def fitted(values: Sequence[float], tests: int = 1) -> dict[str, float]:
    """Location and scales, how many observations, and how well they fit (Kolmogorov-Smirnov). tests: how many are
    fitted, this one among them."""
    location, likely, below = split_gumbel(values)
    above = max(likely, (max(values) - location) / (math.log(len(values) * tests) + 1))
    fit = kstest(standardised(values, location, above, below), gumbel_r.cdf)
    return {
        "location": round(location, 3),
        "above": round(above, 3),
        "below": round(below, 3),
        "likely_above": round(likely, 3),
        "victims": len(values),
        "largest": round(float(np.max(values)), 3),
        "ks_p_value": round(float(fit.pvalue), 3),
    }


def effective_tests(victims: Sequence[Mapping[str, Any]], null: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """How many independent tests would give such smallest p-values (maximum likelihood), and how well that fits."""
    least = []
    for victim in victims:
        if victim["attack"] in (None, "none") and victim["classes"] == CLASSES:
            p = [
                float(gumbel_r.sf(standardised([entry["value"]], *(null[key][name] for name in LAW))[0]))
                for key, entry in victim["values"].items()
                if entry["p_value"] < 1  # larger than an attacker's: counts for nothing
            ]
            least.append(min(p, default=1.0))
    exponential = -np.log1p(-np.array(least))
    tests = 1 / float(exponential.mean())
    combined = -np.expm1(-tests * exponential)
    return {
        "tests": round(tests, 2),
        "ks_p_value": round(float(kstest(combined, "uniform").pvalue), 3),
        "below_1_percent": float((combined < 0.01).mean()),
        "below_5_percent": float((combined < 0.05).mean()),
    }


def lines(null: Mapping[str, Mapping[str, float]]) -> str:
    """The entries of ``null.py``."""
    rows = []
    for key, fit in null.items():
        test, _, kind = key.partition("/")
        rows.append(f'    ("{test}", "{kind}"): ({", ".join(str(fit[name]) for name in LAW)}),\n')
    return "".join(rows)


def replaced(text: str, entries: str, tests: float) -> str:
    """``null.py`` with other entries; those that are not fitted stay."""
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    kept = "".join(line for line in old.splitlines(keepends=True) if '("source"' in line)
    after = re.sub(r"TESTS = [0-9.]+", f"TESTS = {tests}", after)
    return before + BEGIN + entries + kept + END + after


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
    victims = results["victims"]
    seen = observations(victims)
    null = {key: fitted(values, len(seen)) for key, values in sorted(seen.items())}
    union = effective_tests(victims, null)
    print(lines(null), union, sep="")
    if options.write:
        NULL.write_text(replaced(NULL.read_text(), lines(null), union["tests"]))
    if options.out:
        write_record(
            options.out, name=options.out.stem, script=__file__, seed=0, results={"null": null, "union": union}
        )


if __name__ == "__main__":
    main()
