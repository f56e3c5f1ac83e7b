"""Verdicts on networks of families and tasks that were left out: ``python benchmarks/left_out.py --out RECORD``.

For each family of architectures, and then for each task, score and reference set are made of all other networks
(``reference_fit.py``), and those that were left out are judged. So a figure says what to expect of a network of a kind
that nothing was tuned on. The zoo's reporting half is judged as well, by score and reference set of all others, the
zoo's calibration half among them. All of it is from the committed search tables, in a minute or two. ``--page`` puts
the tables into docs/detection.md, ``--figure`` draws the p-values of clean networks.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from page import put
from record import write_record
from reference_fit import FEWEST, Network, networks, reference_of
from scipy.stats import kstest

from untrojan.detection.judge import judge
from untrojan.detection.reference import Reference
from untrojan.intervals import wilson

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "benchmarks" / "records" / "left_out.json"
PAGE = ROOT / "docs" / "detection.md"
BEGIN, END = "<!-- left out: benchmarks/left_out.py -->", "<!-- end of left out -->"
MEASURES = [
    f"src/untrojan/detection/{name}.py"
    for name in ("features", "ranking", "score", "reference", "localise", "judge", "table", "table_files")
] + [
    f"benchmarks/{name}"
    for name in (
        "reference_fit.py",
        "reference_set.py",
        "lottery.py",
        "reference/cards.json",
        "reference/tables.parquet",
    )
]
GROUPS = {
    "badnet": "patch",
    "chessboard": "additive",
    "single-pixel": "additive",
    "sig": "additive",
    "blended": "blended",
    "wanet": "warp",
    "l0-inv": "optimised",
    "l2-inv": "optimised",
    "input-aware": "optimised",
    "wasserstein": "optimised",
}
ORDER = ("patch", "additive", "blended", "warp", "optimised", "all-to-all", "single-source")
WORKS = 0.9
"""ASR of the attacked networks that the figures are of; the others are told beside them."""
ALPHA = 0.01
LEAVES: dict[str, Callable[[Network], str]] = {
    "family": lambda network: str(network.card["family"]),
    "task": lambda network: str(network.card["task"]),
}


def group_of(card: Mapping[str, Any]) -> str:
    """What kind of attack it is: by its setting if that is not all-to-one, else by its trigger."""
    if card["setting"] == "a2a":
        return "all-to-all"
    if card["setting"].startswith("s2t") and card["classes"] > 2:
        return "single-source"
    return GROUPS[card["attack"]]


def rows_of(chosen: Sequence[Network], leave: Callable[[Network], str]) -> list[dict[str, Any]]:
    """One row for each network; score and reference set are of those of other kinds."""
    rows = []
    for kind in sorted({leave(network) for network in chosen}):
        reference = reference_of([network for network in chosen if leave(network) != kind])
        rows += judged([network for network in chosen if leave(network) == kind], reference)
    return sorted(rows, key=lambda row: (row["name"], row["fed"]))


def judged(chosen: Sequence[Network], reference: Reference) -> list[dict[str, Any]]:
    """One row for each network, by name."""
    rows = []
    for network in chosen:
        ruling = judge(network.table, reference, ALPHA)
        rows.append(
            described(network)
            | {
                "verdict": ruling.verdict,
                "p_value": round(ruling.p_value, 6),
                "named": sorted({member.target for one in ruling.named for member in one.members}),
                "likeliest": ruling.found["target-wise"][0].hypothesis.target,
                "reason": ruling.reason if ruling.verdict == "inconclusive" else "",
            }
        )
    return sorted(rows, key=lambda row: (row["name"], row["fed"]))


def described(network: Network) -> dict[str, Any]:
    """What is known of a network beside its verdict."""
    card = network.card
    names = ("name", "family", "task", "classes", "attack", "setting", "acc", "asr", "targets")
    return {name: card[name] for name in names} | {"fed": network.fed, "counts": network.counts}


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """False alarms, and what was found of each group of attacks."""
    rows = [row for row in rows if row["classes"] >= FEWEST]
    uneven = [row for row in rows if row["fed"] == "right" and not row["counts"]]
    right = [row for row in rows if row["fed"] == "right" and row["counts"]]
    clean = [row for row in right if row["attack"] == "none"]
    attacked = [row for row in right if row["attack"] != "none" and row["asr"] is not None]
    fed = [row for row in rows if row["fed"] != "right"]
    low = [row["p_value"] for row in clean if row["p_value"] < 0.2]
    return {
        "clean": alarms(clean),
        "clean_by_family": {
            f: alarms([r for r in clean if r["family"] == f]) for f in sorted({r["family"] for r in clean})
        },
        "clean_by_task": {t: alarms([r for r in clean if r["task"] == t]) for t in sorted({r["task"] for r in clean})},
        "below_0.2": {
            "n": len(low),
            "ks_p_value": round(float(kstest([p / 0.2 for p in low], "uniform").pvalue), 4) if low else None,
        },
        "attacked": {g: power([r for r in attacked if group_of(r) == g and r["asr"] >= WORKS]) for g in ORDER},
        "uneven": {
            "clean": alarms([r for r in uneven if r["attack"] == "none"]),
            "attacked": power([r for r in uneven if r["attack"] != "none" and (r["asr"] or 0) >= WORKS]),
        },
        "likeliest": likeliest([row for row in attacked if row["asr"] >= WORKS and str(row["setting"])[:3] == "a2o"]),
        "weak": power([row for row in attacked if row["asr"] < WORKS]),
        "fed_wrongly": {
            "n": len(fed),
            "flagged": sum(r["verdict"] == "backdoor" for r in fed),
            "inconclusive": sum(r["verdict"] == "inconclusive" for r in fed),
        },
    }


def two_classes(chosen: Sequence[Network]) -> dict[str, Any]:
    """How often an attacked network of two classes stands above a clean one (the area under the ROC curve): by how much
    smaller one class's trigger is than the other's, and by the share of the image that the smallest patch is of."""
    own = [n for n in chosen if n.card["classes"] == 2 and n.fed == "right" and (n.clean or n.card["asr"] >= WORKS)]
    values: dict[str, dict[bool, list[float]]] = {"lead": {}, "patch": {}}
    for network in own:
        lead = max(h.values["joint lead"] for h in network.found["target-wise"])
        sizes = [f.size for f in network.table.rows("target-wise", "patch") if f.size is not None]
        height, width = network.table.network.input_shape[1:]
        values["lead"].setdefault(network.clean, []).append(lead)
        values["patch"].setdefault(network.clean, []).append(-min(sizes, default=math.inf) / (height * width))
    areas = {
        name: round(float(np.mean([[a > c for c in by[True]] for a in by[False]])), 3) if len(by) == 2 else None
        for name, by in values.items()
    }
    return {"clean": sum(n.clean for n in own), "attacked": sum(not n.clean for n in own), "area": areas}


def alarms(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many clean networks are called backdoored, with the 95 % interval of the share."""
    flagged = sum(row["verdict"] == "backdoor" for row in rows)
    rate = wilson(flagged, len(rows))
    return {
        "n": len(rows),
        "flagged": flagged,
        "inconclusive": sum(row["verdict"] == "inconclusive" for row in rows),
        "low": None if rate is None else round(rate.low, 4),
        "high": None if rate is None else round(rate.high, 4),
    }


def likeliest(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Of how many all-to-one networks the target is the class that scores highest, whatever its p-value."""
    return {"n": len(rows), "right": sum([row["likeliest"]] == row["targets"] for row in rows)}


def power(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many attacked networks are found, and with exactly their targets; false: targets named beside the true."""
    found = [row for row in rows if row["verdict"] == "backdoor"]
    return {
        "n": len(rows),
        "found": len(found),
        "exact": sum(row["named"] == row["targets"] for row in found),
        "false_targets": sum(len(set(row["named"]) - set(row["targets"])) for row in found),
    }


def table(results: Mapping[str, Any]) -> str:
    """The figures as they stand in the docs."""
    lines = [
        "| left out | clean, called backdoored | " + " | ".join(ORDER) + " | target scores highest |",
        "|---|---|" + "---|" * (len(ORDER) + 1),
    ]
    shown = (("a family", results), ("a task", results["by_task"]), ("the zoo's reporting half", results["zoo"]))
    for name, own in shown:
        clean = own["clean"]
        cells = [f"{g['found']} of {g['n']}" if (g := own["attacked"][group])["n"] else "–" for group in ORDER]
        share = (
            f"{clean['flagged']} of {clean['n']} [{100 * (clean['low'] or 0):.1f}, {100 * (clean['high'] or 1):.1f}] %"
        )
        cells.append(f"{own['likeliest']['right']} of {own['likeliest']['n']}")
        lines.append(f"| {name} | {share} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The share of clean networks with a p-value below each level, beside what it should be."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    clean = [
        r for r in rows if r["attack"] == "none" and r["fed"] == "right" and r["classes"] >= FEWEST and r["counts"]
    ]
    values = sorted(r["p_value"] for r in clean)
    figure, axes = pyplot.subplots(figsize=(4.5, 4))
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="uniform")
    axes.step(
        [0, *values, 1], [0, *((n + 1) / len(values) for n in range(len(values))), 1], where="post", label="left out"
    )
    axes.set(xlabel="p-value", ylabel="share of clean networks at or below", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge, write the record, and what else is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RECORD)
    parser.add_argument("--page", action="store_true", help="put the table into docs/detection.md")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args(arguments)
    chosen = networks()
    rows = {name: rows_of(chosen, leave) for name, leave in LEAVES.items()}
    rows["zoo"] = judged(networks(reporting=True), reference_of(chosen))
    results = summary(rows["family"]) | {
        "zoo": summary(rows["zoo"]),
        "two_classes": two_classes(chosen),
        "by_task": summary(rows["task"]),
        "alpha": ALPHA,
        "networks": rows,
    }
    write_record(options.out, name=options.out.stem, script=__file__, seed=0, results=results, measures=MEASURES)
    if options.page:
        put(PAGE, BEGIN, END, table(results))
    if options.figure:
        draw(rows["family"], options.figure)
    print(json.dumps({k: v for k, v in results.items() if k != "networks"}, indent=1))


if __name__ == "__main__":
    main()
