"""The README's table, from the end-to-end record: ``python benchmarks/table.py benchmarks/records/end_to_end.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEAD = (
    "| victim | verdict, targets | ACC | ASR (floor) | SIA (ceiling) | TPR | FPR | scan, repair |\n"
    "|---|---|---|---|---|---|---|---|"
)


def percent(rate: dict[str, float] | None) -> str:
    """Value and 95 % interval in percent; a dash for what was not measured."""
    if rate is None:
        return "–"
    return f"{100 * rate['value']:.1f} [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"


def row(victim: dict[str, Any]) -> str:
    """One line of the table."""
    scan, repair, rates = victim["scan"], victim.get("repair"), victim.get("evaluation")
    verdict = f"{scan['verdict']} {scan['targets']}" if scan["targets"] else scan["verdict"]
    spent = f"{scan['seconds']:.0f} s" + (f", {repair['seconds']:.0f} s" if repair else "")
    if rates is None:
        return f"| {victim['name']} | {verdict} | | | | | | {spent} |"
    before, after = rates["before"], rates["after"]
    cells = [
        victim["name"],
        verdict,
        f"{100 * before['acc']['value']:.1f} → {percent(after['acc'])}",
        f"{100 * before['asr']['value']:.1f} → {percent(after['asr'])} ({100 * before['asr_floor']['value']:.1f})",
        f"{100 * before['sia']['value']:.1f} → {percent(after['sia'])} ({100 * before['sia_ceiling']['value']:.1f})",
        percent(after["tpr_of_successful"]),
        percent(after["fpr"]),
        spent,
    ]
    return f"| {' | '.join(cells)} |"


def table(record: dict[str, Any]) -> str:
    """The whole table in Markdown, rates in percent."""
    return "\n".join([HEAD, *(row(victim) for victim in record["results"]["victims"])])


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text())))
