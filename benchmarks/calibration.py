"""Fit the null of the scan's p-values: ``python benchmarks/calibration.py DETECTION.json ten --out RECORD --write``.

The largest value of each test and kind in each clean victim of the calibration half is one observation. Those of ten
classes (``ten``) and those of more than 20 (``many``), whose sizes are compared in another way, have a null each;
what the record at ``--out`` says of the other one stays. Networks that know the same classes of the same images are
alike, and a scan is to be right on a task that nobody has seen: together they count as no more than ``OF_A_TASK``
networks. A Gumbel distribution is fitted by maximum likelihood, with
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
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from record import write_record
from scipy.optimize import minimize
from scipy.stats import gumbel_r, kstwo

from untrojan.detection.anomaly import MANY, in_effect
from untrojan.detection.evidence import ALIKE
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


OF_A_TASK = 20.0
"""As how many networks those of one task, a data set and its classes, count at most, and those of one data set in all.
Ten classes are of few data sets."""
OF_A_TASK_OF_FEWER = 2.0
"""The same of fewer classes, of which there are many tasks; and of those that started from the same weights, whatever
their task: of fifty with one seed 16 % had a p-value below .01, of fifty others of the same tasks 2 %."""

UNSEARCHED = "single/patch+additive"
"""The law of single pairs that are not searched on, nor as blends, beside a trigger for all classes that is odd. Honest
networks have none, so their scans are made to stop there."""

RARE = 0.05
"""Of honest networks with fewer classes as many have a p-value below this, by the factor for them, at most."""


class Seen(NamedTuple):
    """The largest value of a test in a victim, by how many scales it is larger for the number of classes, and as how
    many networks it counts."""

    value: float
    by: float = 0.0
    weight: float = 1.0


Values = Sequence[Seen]


def clean_victims(victims: Sequence[Mapping[str, Any]], group: str) -> list[Mapping[str, Any]]:
    """Those without an attack, of ten classes, of many, or of fewer."""
    clean = [victim for victim in victims if victim["attack"] in (None, "none")]
    belongs = {"ten": lambda k: k == CLASSES, "many": lambda k: k > MANY, "fewer": lambda k: k < CLASSES}[group]
    return [one for one in clean if belongs(one["classes"])]


def weights(victims: Sequence[Mapping[str, Any]], most: float = OF_A_TASK) -> list[float]:
    """As how many networks each counts: those of a task, and those of a seed, as ``most`` at most, and those of a data
    set, whatever its classes, as ``OF_A_TASK``."""
    tasks = [victim["dataset"] for victim in victims]
    seeds = [victim["name"].rpartition("-s")[2] for victim in victims]
    of_task, of_seed = Counter(tasks), Counter(seeds)
    each = [min(1.0, most / of_task[task], most / of_seed[seed]) for task, seed in zip(tasks, seeds, strict=True)]
    of_data: dict[str, float] = {}
    for task, weight in zip(tasks, each, strict=True):
        of_data[_data(task)] = of_data.get(_data(task), 0.0) + weight
    return [weight * min(1.0, OF_A_TASK / of_data[_data(task)]) for task, weight in zip(tasks, each, strict=True)]


def _data(task: str) -> str:
    """The data set that a task's classes are of."""
    return task.partition("?")[0]


def observations(victims: Sequence[Mapping[str, Any]]) -> dict[str, Values]:
    """By test and kind. Of many classes without triggers that are larger than an attacker's, which count for nothing,
    unless there are no others."""
    found: dict[str, list[Seen]] = {}
    larger: dict[str, list[Seen]] = {}
    for victim, weight in zip(victims, weights(victims), strict=True):
        for key, entry in victim["values"].items():
            into = found if victim["classes"] <= MANY or entry["p_value"] < 1 else larger
            into.setdefault(key, []).append(_seen(key, victim, weight))
    return {**larger, **found}


def _seen(key: str, victim: Mapping[str, Any], weight: float = 1.0) -> Seen:
    return Seen(victim["values"][key]["value"], shift(key, victim["classes"]), weight)


def shift(key: str, classes: int) -> float:
    """By how many scales the largest value of a test is larger with so many classes than with those of the null."""
    return math.log(in_effect(classes) / CLASSES) if classes > MANY and not key.startswith("mixed/") else 0.0


def standardised(values: Values, location: float, above: float, below: float) -> NDArray[np.float64]:
    """In units of the scale on its side, as of the null's number of classes."""
    apart = np.array([seen.value for seen in values]) - location
    return np.where(apart > 0, apart / above, apart / below) - np.array([seen.by for seen in values])


def split_gumbel(values: Values) -> tuple[float, float, float]:
    """Location and both scales of the most likely two-sided Gumbel distribution."""

    def loss(parameters: NDArray[np.float64]) -> float:
        location, (above, below) = parameters[0], np.exp(parameters[1:])
        z = standardised(values, location, above, below)
        scale = np.where(alone > location, above, below)
        return float(np.sum(weight * (np.log(scale) - gumbel_r.logpdf(z))))

    alone, weight = np.array([seen.value for seen in values]), np.array([seen.weight for seen in values])
    _, usual = gumbel_r.fit(alone)
    starts = [np.array([q, math.log(usual), math.log(usual)]) for q in np.quantile(alone, [0.1, 0.2, 0.3, 0.4, 0.5])]
    bounds = [(None, None), (math.log(LEAST), math.log(MOST)), (math.log(LEAST), math.log(MOST))]
    fits = [minimize(loss, start, method="Nelder-Mead", bounds=bounds, options={"maxiter": 4000}) for start in starts]
    best = min(fits, key=lambda fit: fit.fun).x
    return float(best[0]), float(np.exp(best[1])), float(np.exp(best[2]))


def weighted_fit(p_values: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """The p-value of Kolmogorov and Smirnov that values with weights are uniform, for as many as they are in effect."""
    order = np.argsort(p_values)
    share = np.cumsum(weight[order]) / weight.sum()
    apart = max(np.max(share - p_values[order]), np.max(p_values[order] - share + weight[order] / weight.sum()))
    return float(kstwo.sf(apart, max(1, round(weight.sum() ** 2 / np.square(weight).sum()))))


def fitted(values: Values, tests: int = 1, least: float = 0.0) -> dict[str, float]:
    """Location and scales, how many observations, and how well they fit (Kolmogorov-Smirnov). tests: how many are
    fitted, this one among them; least: the scale above is no smaller."""
    location, likely, below = split_gumbel(values)
    largest, weight = max(seen.value for seen in values), np.array([seen.weight for seen in values])
    above = max(likely, (largest - location) / (math.log(weight.sum() * tests) + 1), least)
    fit = weighted_fit(gumbel_r.cdf(standardised(values, location, above, below)), weight)
    return {
        "location": round(location, 3),
        "above": round(above, 3),
        "below": round(below, 3),
        "likely_above": round(likely, 3),
        "victims": len(values),
        "count_as": round(float(weight.sum()), 1),
        "largest": round(largest, 3),
        "ks_p_value": round(fit, 3),
    }


def effective_tests(victims: Sequence[Mapping[str, Any]], null: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """How many independent tests would give such smallest p-values (maximum likelihood), and how well that fits."""
    weight, exponential = np.array(weights(victims)), smallest(victims, null)
    tests = float(weight.sum() / (weight * exponential).sum())
    return {"tests": round(tests, 2), **_spread_of(-np.expm1(-tests * exponential), weight)}


def smallest(
    victims: Sequence[Mapping[str, Any]], null: Mapping[str, Mapping[str, float]], factor: float = 1.0
) -> NDArray[np.float64]:
    """-log(1 - p) of each victim's smallest p-value; factor: that of the scales above, but for ``ALIKE``."""

    def p_value(victim: Mapping[str, Any], key: str) -> float:
        law = null[key]
        above = law["above"] * (1.0 if key.partition("/")[0] in ALIKE else factor)
        return float(gumbel_r.sf(standardised([_seen(key, victim)], law["location"], above, law["below"])[0]))

    least = [
        min(
            # One larger than an attacker's counts for nothing.
            (p_value(victim, key) for key, e in victim["values"].items() if key in null and e["p_value"] < 1),
            default=1.0,
        )
        for victim in victims
    ]
    return np.asarray(-np.log1p(-np.minimum(least, 1 - 1e-12)))


def _spread_of(p_values: NDArray[np.float64], weight: NDArray[np.float64]) -> dict[str, float]:
    """How uniform they are."""
    below = {level: round(float(weight[p_values < level].sum() / weight.sum()), 4) for level in (0.01, RARE)}
    return {
        "ks_p_value": round(weighted_fit(p_values, weight), 3),
        "below_1_percent": below[0.01],
        "below_5_percent": below[RARE],
    }


def factor_for_fewer(
    victims: Sequence[Mapping[str, Any]], null: Mapping[str, Mapping[str, float]], tests: float
) -> dict[str, float]:
    """By how much larger the scales above are for fewer classes, but for tests of ``ALIKE``: in tenths the least by
    which p-values are seldom ``RARE``."""
    weight = np.array(weights(victims, OF_A_TASK_OF_FEWER))
    for tenths in range(10, 100):
        p_values = -np.expm1(-tests * smallest(victims, null, tenths / 10))
        if weight[p_values < RARE].sum() <= RARE * weight.sum():
            break
    return {"factor": tenths / 10, "victims": len(victims), **_spread_of(p_values, weight)}


def lines(null: Mapping[str, Mapping[str, float]]) -> str:
    """The entries of ``null.py``."""
    rows = []
    for key, fit in null.items():
        test, _, kind = key.partition("/")
        rows.append(f'    ("{test}", "{kind}"): ({", ".join(str(fit[name]) for name in LAW)}),\n')
    return "".join(rows)


def replaced(text: str, group: str, entries: str, tests: float, factor: float | None = None) -> str:
    """``null.py`` with other entries of a group, their number of tests and, of ten classes, the factor for fewer."""
    before, _, rest = text.partition("\n" + BEGIN[group])
    _, _, after = rest.partition(END)
    made = before + "\n" + BEGIN[group] + entries + END + after
    if factor is not None:
        made = re.sub(r"(FEWER = )[0-9.]+", rf"\g<1>{factor}", made)
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
    parser.add_argument("--unsearched", type=Path, help="such a record of scans that search on no single pairs")
    parser.add_argument("--only", nargs="+", default=["*"], help="patterns of laws; what --out has of others stays")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    if options.write and not options.out:
        parser.error("--write needs --out, the record of what it writes")
    victims = of_the_fit(options.detection, options.group, options.leave_out)
    seen = observations(victims)
    if options.unsearched:
        apart = observations(of_the_fit(options.unsearched, options.group, options.leave_out))
        if UNSEARCHED not in apart:
            parser.error(f"{options.unsearched}: no clean victim has a value of {UNSEARCHED}")
        seen[UNSEARCHED] = apart[UNSEARCHED]
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
    made = {"null": null, "union": union}
    fewer = of_the_fit(options.detection, "fewer", options.leave_out) if options.group == "ten" else []
    if fewer:
        made["fewer"] = factor_for_fewer(fewer, null, union["tests"])
    print(lines(null), union, "\n", made.get("fewer", ""), sep="")
    if options.write:
        factor = made["fewer"]["factor"] if fewer else None
        text = replaced(NULL.read_text(), options.group, lines(null), union["tests"], factor)
        NULL.write_text(text)
    if options.out:
        results = earlier | {options.group: made}
        write_record(options.out, name=options.out.stem, script=__file__, seed=0, results=results)


if __name__ == "__main__":
    main()
