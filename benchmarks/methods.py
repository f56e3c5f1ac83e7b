r"""Cells that ``untrojan bench`` has measured, as a record and a table of a page.

    untrojan bench --plan benchmarks/plans/table1.toml --out RUNS ...
    python benchmarks/methods.py RUNS --out benchmarks/records/methods.json \
        --methods docs/paper.md --guards docs/repair.md

Two tables: ACC, ASR and SIA of every method on every victim, and what BNA's guard flags beside STRIP; in percent.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from page import put
from record import write_record

from untrojan.bench.cell import CELLS, CellRecord
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
    "guards": ("<!-- guards: benchmarks/methods.py -->", "<!-- end of the guards -->"),
}
ORDER = ("none", "bna", "bna-alone", "bna (paper)", "nc", "nad", "i-bau", "anp", "argd", "mmac", "ft", "fp", "strip")


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
    return sorted(found, key=lambda cell: (cell.victim, _rank(label(cell)), cell.seed))


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
        "found": cell.found,
        "targets": cell.targets,
        "guarded": cell.guarded,
        "rates": rates,
        "cost": cost_of(cell),
        "images": None if cell.images is None else cell.images.model_dump(),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each method, a column for each victim."""
    victims = list(dict.fromkeys(one["victim"] for one in rows))
    methods = sorted({one["method"] for one in rows}, key=_rank)
    at = {(one["method"], one["victim"]): one for one in rows}
    made = [
        f"| method | {' | '.join(victim.rpartition('/')[2] for victim in victims)} |",
        "|---" * (len(victims) + 1) + "|",
    ]
    for method in methods:
        cells = [_told(at[method, victim]) if (method, victim) in at else "–" for victim in victims]
        made.append(f"| {method} | {' | '.join(cells)} |")
    floors = [_bounds(next(one for one in rows if one["victim"] == victim)) for victim in victims]
    made.append(f"| *floor of ASR, ceiling of SIA* | {' | '.join(floors)} |")
    return "\n".join(made)


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
        shown = {n: f"{_percent(before[n])} → {_percent(rates[n])}" for n in ("acc", "asr", "sia")}
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


def _told(one: dict[str, Any]) -> str:
    return ", ".join(_percent(one["rates"].get(name)) for name in ("acc", "asr", "sia"))


def _bounds(one: dict[str, Any]) -> str:
    return ", ".join(_percent(one["rates"]["before"].get(name)) for name in ("asr_floor", "sia_ceiling"))


def _percent(rate: dict[str, float] | None) -> str:
    return "–" if rate is None else f"{100 * rate['value']:.1f}"


def _rank(method: str) -> tuple[int, str]:
    return (ORDER.index(method) if method in ORDER else len(ORDER), method)


def main() -> None:
    """Gather, record, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="what untrojan bench --out wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", type=Path, help="the page with the table of methods")
    parser.add_argument("--guards", type=Path, help="the page with the table of guards")
    given = parser.parse_args()
    rows = [json.loads(json.dumps(row(cell), default=str)) for cell in cells_in(given.runs)]
    print(table(rows))
    write_record(given.out, name=given.out.stem, script=__file__, seed=0, results={"cells": rows}, measures=MEASURES)
    if given.methods:
        put(given.methods, *MARKS["methods"], table(rows))
    if given.guards:
        put(given.guards, *MARKS["guards"], guards(rows))


if __name__ == "__main__":
    main()
