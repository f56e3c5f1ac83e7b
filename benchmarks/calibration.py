"""Fit the null of the scan's p-values: ``python benchmarks/calibration.py DETECTION.json ten --out RECORD --write``.

The largest value of each test and kind in each clean victim of the calibration half is one observation. Those of ten
classes (``ten``) and those of more than 20 (``many``), whose sizes are compared in another way, have a null each;
what the record at ``--out`` says of the other one stays. A Gumbel distribution is fitted by maximum likelihood, with
a scale of its own on either side of its location, since the upper tail alone decides and the values below should not
bend it. The upper scale is raised where the largest observation would be larger than the largest of as many as all
tests have together mostly is: a heavy tail must not make false alarms. Networks of many classes are few, and a scale
that is fitted to few may come out small by chance: it is half of that of ten classes at least. The largest of n
times as many values is larger by log n scales. ``--write`` puts the result into ``src/untrojan/detection/null.py``;
``--leave-out`` keeps victims out of the fit, to see how the null suits them. All have to be judged as the scan judges
now: they tell how many tests there are in effect.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import write_record
from scipy.optimize import minimize
from scipy.stats import gumbel_r, kstest

from untrojan.detection.anomaly import MANY, in_effect
from untrojan.detection.null import CLASSES
from untrojan.detection.null import NULL as NULL_OF_TEN

ROOT = Path(__file__).resolve().parent.parent
NULL = ROOT / "src" / "untrojan" / "detection" / "null.py"
BEGIN = {
    "ten": "NULL: dict[tuple[str, str], tuple[float, float, float]] = {\n",
    "many": "NULL_OF_MANY: dict[tuple[str, str], tuple[float, float, float]] = {\n",
}
END = "}\n"
LAW = ("location", "above", "below")
FEWEST = 10
"""Victims that a law is fitted to; where a record has fewer, the fit before it stays."""
LEAST, MOST = 0.01, 2.0
"""Of a scale: few values may be fitted best by one that is next to nothing, or endless."""


Values = list[tuple[float, float]]
"""Of each victim the largest value of a test, and by how many scales it is larger for the number of classes."""


def clean_victims(victims: Sequence[Mapping[str, Any]], group: str) -> list[Mapping[str, Any]]:
    """Those without an attack, of ten classes or of many."""
    clean = [victim for victim in victims if victim["attack"] in (None, "none")]
    return [one for one in clean if (one["classes"] > MANY if group == "many" else one["classes"] == CLASSES)]


def observations(victims: Sequence[Mapping[str, Any]]) -> dict[str, Values]:
    """By test and kind. Of many classes without triggers that are larger than an attacker's, which count for nothing,
    unless there are no others."""
    found: dict[str, Values] = {}
    larger: dict[str, Values] = {}
    for victim in victims:
        for key, entry in victim["values"].items():
            into = found if victim["classes"] == CLASSES or entry["p_value"] < 1 else larger
            into.setdefault(key, []).append((entry["value"], shift(key, victim["classes"])))
    return larger | found


def shift(key: str, classes: int) -> float:
    """By how many scales the largest value of a test is larger with so many classes than with those of the null."""
    return math.log(in_effect(classes) / CLASSES) if classes > MANY and not key.startswith("mixed/") else 0.0


def standardised(values: Values, location: float, above: float, below: float) -> NDArray[np.float64]:
    """In units of the scale on its side, as of the null's number of classes."""
    apart = np.array([value for value, _ in values]) - location
    return np.where(apart > 0, apart / above, apart / below) - np.array([by for _, by in values])


def split_gumbel(values: Values) -> tuple[float, float, float]:
    """Location and both scales of the most likely two-sided Gumbel distribution."""

    def loss(parameters: NDArray[np.float64]) -> float:
        location, (above, below) = parameters[0], np.exp(parameters[1:])
        z = standardised(values, location, above, below)
        scale = np.where(alone > location, above, below)
        return float(np.sum(np.log(scale) - gumbel_r.logpdf(z)))

    alone = np.array([value for value, _ in values])
    _, usual = gumbel_r.fit(alone)
    starts = [np.array([q, math.log(usual), math.log(usual)]) for q in np.quantile(alone, [0.1, 0.2, 0.3, 0.4, 0.5])]
    bounds = [(None, None), (math.log(LEAST), math.log(MOST)), (math.log(LEAST), math.log(MOST))]
    fits = [minimize(loss, start, method="Nelder-Mead", bounds=bounds, options={"maxiter": 4000}) for start in starts]
    best = min(fits, key=lambda fit: fit.fun).x
    return float(best[0]), float(np.exp(best[1])), float(np.exp(best[2]))


def fitted(values: Values, tests: int = 1, least: float = 0.0) -> dict[str, float]:
    """Location and scales, how many observations, and how well they fit (Kolmogorov-Smirnov). tests: how many are
    fitted, this one among them; least: the scale above is no smaller."""
    location, likely, below = split_gumbel(values)
    largest = max(value for value, _ in values)
    above = max(likely, (largest - location) / (math.log(len(values) * tests) + 1), least)
    fit = kstest(standardised(values, location, above, below), gumbel_r.cdf)
    return {
        "location": round(location, 3),
        "above": round(above, 3),
        "below": round(below, 3),
        "likely_above": round(likely, 3),
        "victims": len(values),
        "largest": round(largest, 3),
        "ks_p_value": round(float(fit.pvalue), 3),
    }


def effective_tests(victims: Sequence[Mapping[str, Any]], null: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """How many independent tests would give such smallest p-values (maximum likelihood), and how well that fits."""
    least = []
    for victim in victims:
        p = [
            float(gumbel_r.sf(standardised(value, *(null[key][name] for name in LAW))[0]))
            for key, value in observations([victim]).items()
            if key in null and victim["values"][key]["p_value"] < 1  # larger than an attacker's: counts for nothing
        ]
        least.append(min(p, default=1.0))
    exponential = -np.log1p(-np.minimum(least, 1 - 1e-12))
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


def replaced(text: str, group: str, entries: str, tests: float) -> str:
    """``null.py`` with other entries of a group, and their number of tests."""
    before, _, rest = text.partition("\n" + BEGIN[group])
    _, _, after = rest.partition(END)
    made = before + "\n" + BEGIN[group] + entries + END + after
    new = rf"\g<1>{tests}, \g<3>" if group == "ten" else rf"\g<1>\g<2>, {tests}"
    return re.sub(r"(TESTS, TESTS_OF_MANY = )([0-9.]+), ([0-9.]+)", new, made)


def of_the_fit(record: Path, group: str, leave_out: Sequence[str]) -> list[Mapping[str, Any]]:
    """The clean victims of a record that a null is fitted to."""
    results = json.loads(record.read_text())["results"]
    if results["half"] != "calibration":
        raise SystemExit(f"{record}: of the {results['half']} half; a null is fitted on the other one")
    clean = clean_victims(results["victims"], group)
    return [victim for victim in clean if not any(fnmatch(victim["name"], pattern) for pattern in leave_out)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, show, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("detection", type=Path, help="a record of benchmarks/detection.py, calibration half")
    parser.add_argument("group", choices=BEGIN)
    parser.add_argument("--leave-out", nargs="+", default=[], help="patterns of names")
    parser.add_argument("--only", nargs="+", default=["*"], help="patterns of laws; what --out has of others stays")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    if options.write and not options.out:
        parser.error("--write needs --out, the record of what it writes")
    victims = of_the_fit(options.detection, options.group, options.leave_out)
    seen = observations(victims)
    least = {f"{test}/{law}": above / 2 for (test, law), (_, above, _) in NULL_OF_TEN.items()}
    earlier = json.loads(options.out.read_text())["results"] if options.out and options.out.is_file() else {}
    before = earlier.get(options.group, {"null": {}})["null"]
    enough = {key for key, values in seen.items() if len(values) >= (FEWEST if key in before else 2)}
    for key in sorted(seen.keys() - enough):
        print(f"{key}: shown by {len(seen[key])} victims only, {'as before' if key in before else 'left out'}")
    chosen = {key for key in enough if key not in before or any(fnmatch(key, pattern) for pattern in options.only)}
    null = {
        key: fitted(seen[key], len(seen), least.get(key, 0.0) if options.group == "many" else 0.0)
        if key in chosen
        else before[key]
        for key in sorted({*chosen, *before})
    }
    union = effective_tests(victims, null)
    print(lines(null), union, sep="")
    if options.write:
        text = replaced(NULL.read_text(), options.group, lines(null), union["tests"])
        NULL.write_text(text)
    if options.out:
        made = earlier | {options.group: {"null": null, "union": union}}
        write_record(options.out, name=options.out.stem, script=__file__, seed=0, results=made)


if __name__ == "__main__":
    main()
