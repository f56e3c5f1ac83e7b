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

from scipy.stats import mannwhitneyu

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


def group(row: dict[str, Any]) -> tuple[str, str, str]:
    """What one line is about."""
    if is_clean(row):
        return row["dataset"], "none", ""
    learnt = "" if row["asr"] >= LEARNT else NOT_LEARNT
    return row["dataset"], row["attack"] + learnt, row["setting"].partition(":")[0]


def is_clean(row: Mapping[str, Any]) -> bool:
    """Whether nothing was poisoned."""
    return row["attack"] in (None, "none")


def aucs(victims: Sequence[Mapping[str, Any]]) -> list[str]:
    """By data set, how often an attacked victim has a smaller p-value than a clean one (ROC AUC)."""
    made = []
    for dataset in sorted({str(row["dataset"]) for row in victims}):
        own = [row for row in victims if row["dataset"] == dataset]
        clean = [row["p_value"] for row in own if is_clean(row)]
        attacked = [row["p_value"] for row in own if not is_clean(row) and row["asr"] >= LEARNT]
        if clean and attacked:
            area = mannwhitneyu(clean, attacked).statistic / (len(clean) * len(attacked))
            made.append(f"{dataset} {area:.3f} ({len(attacked)} attacked, {len(clean)} clean)")
    return made


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
        interval = "" if rate is None else f" [{100 * rate.low:.0f}, {100 * rate.high:.0f}]"
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
            f"{found} of {len(rows)}{interval}",
            f"{named} of {wanted}" if wanted else "–",
            str(false),
            cost(rows),
        )
        made.append(f"| {' | '.join(cells)} |")
    return made


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
            if areas := aucs(results["victims"]):
                parts.append(f"AUC of the p-value: {'; '.join(areas)}.")
    return "\n\n".join(parts)


def main() -> None:
    """Print the tables, or put them into their page."""
    made = tables()
    if "--write" not in sys.argv[1:]:
        print(made)
        return
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
