"""The tables in ``docs/detection.md``, from the records: ``python benchmarks/detection_table.py [--write]``.

For each data set, attack and setting: how many victims were called attacked, with its 95 % interval over victims, how
often the attacker's targets were named and others beside them, and what a scan cost.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from page import put
from scipy.stats import kstest, mannwhitneyu

from untrojan.intervals import wilson

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "detection.md"
RECORDS = ROOT / "benchmarks" / "records"
BEGIN, END = (
    "<!-- detection tables: benchmarks/detection_table.py --write -->",
    "<!-- end of the detection tables -->",
)
HEAD = (
    "| data set | attack | setting | victims | ASR, mean | called attacked [95 %] | targets named | false targets | "
    "images, seconds (median) |\n|---|---|---|---|---|---|---|---|---|"
)


LEARNT, NOT_LEARNT = 0.5, " (not learnt)"
"""Below this ASR a victim counts as not attacked successfully, and is listed apart."""

ENOUGH, UNION = 20, "all together, the scan's p-value"
"""Of fewer clean victims no rate, and no AUC of a single test, is told."""

FEWEST = 3
"""Of fewer victims, clean or attacked, no AUC of the p-value is told."""


def group(row: dict[str, Any]) -> tuple[str, str, str]:
    """What one line is about."""
    if is_clean(row):
        return task(row), "none", ""
    learnt = "" if row["asr"] >= LEARNT else NOT_LEARNT
    return task(row), row["attack"] + learnt, row["setting"].partition(":")[0]


def task(row: Mapping[str, Any]) -> str:
    """The data set, and of which classes; those that were drawn by lot together, if as many."""
    name, _, chosen = str(row["dataset"]).partition("?classes=")
    if not chosen:
        return name
    return f"{name}, {row['classes']} by lot" if "," in chosen else f"{name}, first {chosen}"


def is_clean(row: Mapping[str, Any]) -> bool:
    """Whether nothing was poisoned."""
    return row["attack"] in (None, "none")


def aucs(victims: Sequence[Mapping[str, Any]]) -> list[str]:
    """By data set with at least ``FEWEST`` of either: how often an attacked victim has a smaller p-value than a clean
    one (ROC AUC)."""
    made = []
    for dataset in sorted({str(row["dataset"]) for row in victims}):
        own = [row for row in victims if row["dataset"] == dataset]
        clean = [row["p_value"] for row in own if is_clean(row)]
        attacked = [row["p_value"] for row in own if not is_clean(row) and row["asr"] >= LEARNT]
        if min(len(clean), len(attacked)) >= FEWEST:
            area = mannwhitneyu(clean, attacked).statistic / (len(clean) * len(attacked))
            made.append(f"{dataset} {area:.3f} ({len(attacked)} attacked, {len(clean)} clean)")
    return made


def by_test(victims: Sequence[Mapping[str, Any]]) -> list[str]:
    """The AUC of each test and kind alone, a line each, the union of all first; a column per data set with at least
    ``ENOUGH`` clean victims. Over the victims that a test was made of: pairs are not searched as blends where a trigger
    for all classes is odd, and rows of earlier scans have no blends."""
    columns: dict[str, dict[str, float]] = {}
    for dataset in sorted({str(row["dataset"]) for row in victims}):
        own = [row for row in victims if row["dataset"] == dataset and (is_clean(row) or row["asr"] >= LEARNT)]
        clean = [row for row in own if is_clean(row)]
        attacked = [row for row in own if not is_clean(row)]
        if len(clean) >= ENOUGH and attacked:
            union = [[-row["p_value"] for row in rows] for rows in (attacked, clean)]
            scores = {UNION: union} | {
                test: [[oddness(row, test) for row in rows if test in row["values"]] for rows in (attacked, clean)]
                for test in {test for row in own for test in row["values"]}
            }
            columns[dataset] = {
                test: mannwhitneyu(odd, usual).statistic / (len(odd) * len(usual))
                for test, (odd, usual) in scores.items()
                if odd and len(usual) >= ENOUGH
            }
    if not columns:
        return []
    tests = sorted({test for areas in columns.values() for test in areas}, key=lambda test: (test != UNION, test))
    return [
        f"| test/kind | {' | '.join(f'AUC, {dataset}' for dataset in columns)} |",
        "|---" * (len(columns) + 1) + "|",
        *(
            f"| {t} | {' | '.join(f'{areas[t]:.3f}' if t in areas else '–' for areas in columns.values())} |"
            for t in tests
        ),
    ]


def oddness(row: Mapping[str, Any], test: str) -> float:
    """What a single test says of a victim; nothing where it was too large a trigger to be an attacker's, or none."""
    entry = row["values"].get(test)
    return entry["value"] if entry is not None and entry["p_value"] < 1 else -np.inf


def lines(victims: Sequence[dict[str, Any]]) -> list[str]:
    """The table's lines, clean victims first within a data set."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in victims:
        groups[group(row)].append(row)
    made = []
    for key in sorted(groups, key=lambda k: (k[0], k[1] != "none", k[2], k[1])):
        rows = groups[key]
        found = sum(row["verdict"] == "backdoor" for row in rows)
        rate = wilson(found, len(rows))
        named = sum(len(set(row["targets"]) & set(row["true_targets"])) for row in rows)
        wanted = sum(len(row["true_targets"]) for row in rows if row["verdict"] == "backdoor")
        false = sum(len(set(row["targets"]) - set(row["true_targets"])) for row in rows)
        asr = [row["asr"] for row in rows if row["asr"] is not None]
        cells = (
            key[0],
            key[1],
            key[2] or "–",
            str(len(rows)),
            f"{100 * mean(asr):.0f}" if asr else "–",
            f"{found} of {len(rows)}{interval(rate)}",
            f"{named} of {wanted}" if wanted else "–",
            str(false),
            cost(rows),
        )
        made.append(f"| {' | '.join(cells)} |")
    return made


def uniformity(victims: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the p-values of clean victims lie: how many are small, and Kolmogorov-Smirnov against the uniform law."""
    p_values = np.array([row["p_value"] for row in victims if is_clean(row)])
    if len(p_values) < ENOUGH:
        return []
    shares = ", ".join(f"{100 * (p_values < level).mean():.1f} % below {level}" for level in (0.01, 0.05, 0.2, 0.5))
    fit = kstest(p_values, "uniform")
    return [f"p-values of the {len(p_values)} clean victims: {shares}; Kolmogorov-Smirnov p = {fit.pvalue:.2f}"]


def compared(results: Mapping[str, Any]) -> list[str]:
    """A line per detector over the same victims: right verdicts, targets named, images and seconds."""
    rows = [row for row in results["victims"] if row["asr"] is None or row["asr"] >= LEARNT]
    clean = [row for row in rows if is_clean(row)]
    attacked = [row for row in rows if not is_clean(row)]
    made = [
        f"{len(attacked)} attacked victims and {len(clean)} clean ones of the {results['half']} half, one run:",
        "",
        "| detector | attacked found [95 %] | all its targets, and no other | clean flagged [95 %] | AUC | "
        "images forward + backward, seconds (median) |",
        "|---|---|---|---|---|---|",
    ]
    for name in rows[0]["answers"]:
        flagged = [[row["answers"][name]["flagged"] for row in group] for group in (attacked, clean)]
        exact = sum(row["answers"][name]["targets"] == row["true_targets"] for row in attacked)
        scores = [[row["answers"][name]["score"] for row in group] for group in (attacked, clean)]
        area = mannwhitneyu(*scores).statistic / (len(attacked) * len(clean))
        rates = [wilson(sum(group), len(group)) for group in flagged]
        cells = (
            name,
            f"{sum(flagged[0])} of {len(attacked)}{interval(rates[0])}",
            f"{exact} of {len(attacked)}",
            f"{sum(flagged[1])} of {len(clean)}{interval(rates[1])}",
            f"{area:.2f}",
            cost([row["answers"][name] for row in rows]),
        )
        made.append(f"| {' | '.join(cells)} |")
    return made


def growth(victims: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a scan costs by the number of classes, and how many times as much as with the fewest."""
    rows = sorted((row for row in victims if row["seconds"] is not None), key=lambda row: (row["classes"], row["name"]))
    if not rows:
        return []
    least = rows[0]
    made = [
        "| classes | victim | verdict | images forward + backward | times as many | images forward |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            str(row["classes"]),
            row["name"],
            row["verdict"],
            f"{row['images_forward_backward']:,}",
            f"{row['images_forward_backward'] / least['images_forward_backward']:.1f}",
            f"{row['images_forward']:,}",
        )
        made.append(f"| {' | '.join(cells)} |")
    return made


def interval(rate: Any) -> str:
    """In percent, in brackets."""
    return "" if rate is None else f" [{100 * rate.low:.0f}, {100 * rate.high:.0f}]"


def cost(rows: Sequence[Mapping[str, Any]]) -> str:
    """Median images and seconds of those that were searched in one go."""
    known = [row for row in rows if row["seconds"] is not None]
    if not known:
        return "–"
    images, seconds = (median(row[name] for row in known) for name in ("images_forward_backward", "seconds"))
    return f"{images:,.0f}, {seconds:,.0f}"


def tables() -> str:
    """A table for each half that has a record."""
    parts = []
    for half in ("reporting", "calibration"):
        path = RECORDS / f"detection_{half}.json"
        if path.is_file():
            results = json.loads(path.read_text())["results"]
            parts.append("\n".join([f"### The {half} half\n", HEAD, *lines(results["victims"])]))
            parts.append(
                "\n".join(
                    [
                        *(f"- AUC of the p-value, {area}." for area in aucs(results["victims"])),
                        *(f"- {line}." for line in uniformity(results["victims"])),
                    ]
                )
            )
            parts.append("\n".join(by_test(results["victims"])))
    path = RECORDS / "detection_growth.json"
    if path.is_file():
        rows = json.loads(path.read_text())["results"]["victims"]
        parts.append("\n".join(["### How the cost grows with the classes\n", *growth(rows)]))
    path = RECORDS / "detectors.json"
    if path.is_file():
        parts.append("\n".join(["### Beside other detectors\n", *compared(json.loads(path.read_text())["results"])]))
    return "\n\n".join(part for part in parts if part)


def main() -> None:
    """Print the tables, or put them into their page."""
    made = tables()
    if "--write" not in sys.argv[1:]:
        print(made)
        return
    put(PAGE, BEGIN, END, made)


if __name__ == "__main__":
    main()
