r"""Cells that ``untrojan bench`` has measured, as a record and a table of a page.

    untrojan bench --plan benchmarks/plans/table1.toml --out RUNS ...
    python benchmarks/methods.py RUNS --out benchmarks/records/methods.json \
        --methods docs/paper.md --guards docs/repair.md

With ``--keep`` the cells of the record at ``--out`` that the runs do not have stay in it: all of them are a night's
work. Each row says at which commit it was measured.

Two tables: ACC, ASR and SIA of every method on every victim, and what BNA's guard flags beside STRIP; in percent.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from page import put
from record import kept, write_record

from untrojan.bench.cell import CELLS, CellRecord
from untrojan.bench.statistics import mean_over_victims
from untrojan.bench.tables import cost_of
from untrojan.errors import CheckpointError
from untrojan.storage import read_text

ROOT = Path(__file__).resolve().parent.parent
MEASURES = [
    "src/untrojan/bench/work.py",
    "src/untrojan/pipeline.py",
    *(f"src/untrojan/correction/{name}.py" for name in ("bna", "tuning")),
]
MARKS = {
    "methods": ("<!-- methods: benchmarks/methods.py -->", "<!-- end of the methods -->"),
    "spread": ("<!-- spread: benchmarks/methods.py -->", "<!-- end of the spread -->"),
    "guards": ("<!-- guards: benchmarks/methods.py -->", "<!-- end of the guards -->"),
}
ORDER = ("none", "bna", "bna-alone", "bna (paper)", "nc", "nad", "i-bau", "anp", "argd", "mmac", "ft", "fp", "strip")
RATES = ("acc", "asr", "sia")
PAPERS = ("badnet", "chessboard", "single-pixel", "l0-inv", "l2-inv", "wanet")
SETTINGS = {"a2o9": "all-to-one", "a2a": "all-to-all"}


def cells_in(folders: list[Path]) -> list[CellRecord]:
    """The cells that are done, by victim and method."""
    found = []
    for path in (path for folder in folders for path in sorted((folder / CELLS).glob("*.json"))):
        try:
            record = CellRecord.model_validate_json(read_text(path))
        except (CheckpointError, ValueError):
            continue
        if record.status == "done":
            found.append(record)
    return found


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By victim, method and seed."""
    return sorted(rows, key=lambda one: (one["victim"], _rank(one["method"]), one["seed"]))


def _same(one: dict[str, Any]) -> tuple[Any, ...]:
    """What two measurements of the same thing have in common. The options may differ: defaults change."""
    return one["victim"], one["method"], one["seed"], one["images"]


def label(cell: CellRecord) -> str:
    """The method, with "(paper)" for the paper's recipe of BNA."""
    paper = cell.options.get("margin_share") == 0 and cell.options.get("correction", {}).get("epochs") == 30
    return f"{cell.method} (paper)" if paper else cell.method


def row(cell: CellRecord) -> dict[str, Any]:
    """What of a cell is kept; its rates are those behind the method, of the victim alone for none."""
    rates: dict[str, Any] = {}
    if cell.evaluation is not None:
        before, after = cell.evaluation.before, cell.evaluation.after
        rates = {"before": json.loads(before.model_dump_json())}
        rates |= json.loads((after or before).model_dump_json())
    return {
        "victim": cell.victim,
        "method": label(cell),
        "options": cell.options,
        "seed": cell.seed,
        "commit": cell.commit,
        "found": cell.found,
        "targets": cell.targets,
        "guarded": cell.guarded,
        "rates": rates,
        "cost": cost_of(cell),
        "images": None if cell.images is None else cell.images.model_dump(),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each method, a column for each attack and network: means over victims, how many if not one."""
    groups = list(dict.fromkeys(group(one["victim"]) for one in rows))
    methods = sorted({one["method"] for one in rows}, key=_rank)
    made = [f"| method | {' | '.join(groups)} |", "|---" * (len(groups) + 1) + "|"]
    for method in methods:
        chosen = [[one for one in rows if one["method"] == method and group(one["victim"]) == g] for g in groups]
        made.append(f"| {method} | {' | '.join(_told(cells) for cells in chosen)} |")
    floors = [_bounds([one for one in rows if group(one["victim"]) == g]) for g in groups]
    made.append(f"| *floor of ASR, ceiling of SIA* | {' | '.join(floors)} |")
    return "\n".join(made)


def group(victim: str) -> str:
    """What victims of several seeds have in common: "cifar10/badnet-a2o9-s100" to "badnet-a2o9"."""
    return re.sub(r"-s\d+$", "", victim.rpartition("/")[2])


def spread(rows: list[dict[str, Any]]) -> str:
    """What BNA leaves to be wished for, in points, with intervals over victims: a line for each attack, and for all."""
    made = [
        "| attack | victims | ACC lost | ASR over its floor | SIA under its ceiling | TPR of successful | FPR |",
        "|---" * 7 + "|",
    ]
    own = [one for one in rows if one["method"] == "bna"]  # a victim that got no guard counts as it is
    groups = {
        g: [one for one in own if group(one["victim"]) == g] for g in dict.fromkeys(group(o["victim"]) for o in own)
    }
    for setting, name in SETTINGS.items():
        papers = [one for g, cells in groups.items() if g in {f"{a}-{setting}" for a in PAPERS} for one in cells]
        if len(papers) > 1:
            groups[f"*the paper's, {name}*"] = papers
    for name, cells in groups.items():
        made.append(f"| {name} | {len(by_victim(cells))} | {' | '.join(_intervals(cells))} |")
    return "\n".join(made)


def by_victim(cells: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The cells of each victim, which may have been measured more than once."""
    return {name: [one for one in cells if one["victim"] == name] for name in dict.fromkeys(c["victim"] for c in cells)}


def _lacks(one: dict[str, Any]) -> list[float | None]:
    rates, before = one["rates"], one["rates"]["before"]

    def apart(first: dict[str, float] | None, second: dict[str, float] | None) -> float | None:
        return None if first is None or second is None else 100 * (first["value"] - second["value"])

    zero = {"value": 0.0}
    return [
        apart(before.get("acc"), rates.get("acc")),
        apart(rates.get("asr"), before.get("asr_floor")),
        apart(before.get("sia_ceiling"), rates.get("sia")),
        apart(rates.get("tpr_of_successful"), zero),
        apart(rates.get("fpr"), zero),
    ]


def _intervals(cells: list[dict[str, Any]]) -> list[str]:
    """Of each of ``_lacks`` the mean over victims with its 95 % interval."""
    shown = []
    for i, bounds in enumerate((None, None, None, (0.0, 100.0), (0.0, 100.0))):
        values = {
            name: [v for one in own if (v := _lacks(one)[i]) is not None] for name, own in by_victim(cells).items()
        }
        mean = mean_over_victims(values, bounds=bounds)
        if mean is None:
            shown.append("–")
        elif mean.low is None:
            shown.append(f"{mean.value:.1f}")
        else:
            shown.append(f"{mean.value:.1f} [{mean.low:.1f}, {mean.high:.1f}]")
    return shown


def guards(rows: list[dict[str, Any]]) -> str:
    """A line for each victim that has a guard: what it does, and what STRIP flags there."""
    made = [
        "| victim | targets found | ACC | ASR (floor) | SIA (ceiling) | TPR of successful, FPR | STRIP's TPR, FPR |",
        "|---" * 7 + "|",
    ]
    at = {(one["method"], one["victim"]): one for one in rows}
    for victim in dict.fromkeys(one["victim"] for one in rows if one["method"] == "bna"):
        one, strip = at["bna", victim], at.get(("strip", victim))
        if not one["guarded"]:
            made.append(f"| {victim} | none | – | – | – | – | – |")
            continue
        rates, before = one["rates"], one["rates"]["before"]
        shown = {n: f"{_percent(before[n])} → {_percent(rates[n])}" for n in RATES}
        flagged = [_flags(rates), "–" if strip is None else _flags(strip["rates"])]
        cells = (
            victim,
            ", ".join(map(str, one["targets"])),
            shown["acc"],
            f"{shown['asr']} ({_percent(before['asr_floor'])})",
            f"{shown['sia']} ({_percent(before['sia_ceiling'])})",
            *flagged,
        )
        made.append(f"| {' | '.join(cells)} |")
    return "\n".join(made)


def _flags(rates: dict[str, Any]) -> str:
    return f"{_percent(rates.get('tpr_of_successful'))}, {_percent(rates.get('fpr'))}"


def _told(cells: list[dict[str, Any]]) -> str:
    if not cells:
        return "–"
    means = [_mean([[one["rates"].get(name) for one in own] for own in by_victim(cells).values()]) for name in RATES]
    count = len(by_victim(cells))
    return ", ".join(means) + (f" ({count})" if count > 1 else "")


def _bounds(cells: list[dict[str, Any]]) -> str:
    same = [one for one in cells if one["method"] != "strip"]  # which is measured on fewer images
    before = [[one["rates"]["before"] for one in own] for own in by_victim(same).values()]
    return ", ".join(_mean([[b.get(name) for b in own] for own in before]) for name in ("asr_floor", "sia_ceiling"))


def _mean(rates: list[list[dict[str, float] | None]]) -> str:
    """Over victims of the mean over each one's cells, in percent."""
    mean = mean_over_victims({str(i): [r["value"] for r in own if r is not None] for i, own in enumerate(rates)})
    return "–" if mean is None else f"{100 * mean.value:.1f}"


def _percent(rate: dict[str, float] | None) -> str:
    return "–" if rate is None else f"{100 * rate['value']:.1f}"


def _rank(method: str) -> tuple[int, str]:
    return (ORDER.index(method) if method in ORDER else len(ORDER), method)


def main() -> None:
    """Gather, record, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="what untrojan bench --out wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep", action="store_true", help="also keep what the record at --out has of other cells")
    parser.add_argument("--methods", type=Path, help="the page with the table of methods")
    parser.add_argument("--guards", type=Path, help="the page with the table of guards")
    given = parser.parse_args()
    rows = [json.loads(json.dumps(row(cell), default=str)) for cell in cells_in(given.runs)]
    rows = in_order(rows + (kept(given.out, "cells", rows, _same) if given.keep else []))
    print(table(rows))
    write_record(given.out, name=given.out.stem, script=__file__, seed=0, results={"cells": rows}, measures=MEASURES)
    if given.methods:
        put(given.methods, *MARKS["methods"], table(rows))
        put(given.methods, *MARKS["spread"], spread(rows))
    if given.guards:
        put(given.guards, *MARKS["guards"], guards(rows))


if __name__ == "__main__":
    main()
