"""The README's table, from the end-to-end record: ``python benchmarks/table.py benchmarks/records/end_to_end.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEAD = (
    "| victim | verdict, targets, time | guard, time | ACC | ASR (floor) | SIA (ceiling) | TPR | FPR |\n"
    "|---|---|---|---|---|---|---|---|"
)
GUARDS = {"untrojan": "many stand-ins", "paper": "the paper's smallest ones"}


def percent(rate: dict[str, float] | None) -> str:
    """Value and 95 % interval in percent; a dash for what was not measured."""
    if rate is None:
        return "–"
    return f"{100 * rate['value']:.1f} [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"


def rows(victim: dict[str, Any]) -> list[str]:
    """The lines of one victim: one for each guard, or one without."""
    scan = victim["scan"]
    verdict = f"{scan['verdict']}{' ' + str(scan['targets']) if scan['targets'] else ''}, {scan['seconds']:.0f} s"
    lines = []
    for position, (recipe, repair) in enumerate(victim["repairs"].items()):
        about = [victim["name"], verdict] if position == 0 else ["", ""]
        lines.append([*about, f"{GUARDS[recipe]}, {repair['seconds']:.0f} s", *rates(repair.get("evaluation"))])
    return [f"| {' | '.join(cells)} |" for cells in lines or [[victim["name"], verdict, *[""] * 6]]]


def rates(evaluation: dict[str, Any] | None) -> list[str]:
    """ACC, ASR, SIA before and behind the guard, TPR of the successful triggers, FPR."""
    if evaluation is None:
        return ["–"] * 5
    before, after = evaluation["before"], evaluation["after"]

    def change(name: str) -> str:
        return (
            percent(after[name])
            if before[name] is None
            else f"{100 * before[name]['value']:.1f} → {percent(after[name])}"
        )

    def beside(name: str) -> str:
        return "" if before[name] is None else f" ({100 * before[name]['value']:.1f})"

    return [
        change("acc"),
        change("asr") + beside("asr_floor"),
        change("sia") + beside("sia_ceiling"),
        percent(after["tpr_of_successful"]),
        percent(after["fpr"]),
    ]


def table(record: dict[str, Any]) -> str:
    """The whole table in Markdown, rates in percent."""
    return "\n".join([HEAD, *(line for victim in record["results"]["victims"] for line in rows(victim))])


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text())))
